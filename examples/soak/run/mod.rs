//! One soak: a world, clients that never retry, events by schedule, and what is to be true all the time.
//!
//! ```text
//! schedule.rs  seed → what happens when [pure]
//! dice.rs      what a seed decides [pure]
//! stage.rs     the world, and how each event is brought about
//! clock.rs     the wall clock of the processes, which jumps
//! load.rs      the clients; every failure is written down with its times
//! excuse.rs    which failures were declared: what was in flight when something was killed [pure]
//! meters.rs    memory, descriptors and threads of the processes
//! report.rs    the table, and what was wrong
//! ```

mod clock;
mod dice;
mod excuse;
mod load;
mod meters;
mod report;
mod schedule;
mod stage;

use std::time::{Duration, Instant};

pub use report::Report;

use load::Load;
use meters::Meters;
use stage::Stage;

pub struct Plan {
    pub length: Duration,
    pub every: Duration,
    pub seed: u64,
    /// Keep-alive clients; the other kinds go with it.
    pub clients: usize,
    /// Prints each event as it happens.
    pub talks: bool,
}

pub async fn run(plan: &Plan) -> Report {
    let mut stage = Stage::start(plan.seed).await;
    let kinds = stage.kinds();
    let events = schedule::schedule(plan.seed, plan.length, plan.every, &kinds);
    let idle = stage.meter();
    let load = Load::start(stage.world.web(), stage.secure(), plan.clients);
    let began = Instant::now();
    let mut meters = Meters::default();
    let mut done = Vec::new();
    for event in events {
        let wait = event.at.saturating_sub(began.elapsed());
        // The schedule is what is tested; nothing is waited for by it.
        tokio::time::sleep(wait).await;
        if plan.talks {
            println!("{:>7.1} s  {}", began.elapsed().as_secs_f64(), event.what);
        }
        done.push(stage.perform(&event).await);
        meters.push(began.elapsed(), stage.meter());
    }
    tokio::time::sleep(plan.length.saturating_sub(began.elapsed())).await;
    let seen = load.stop().await;
    let (after, leftovers) = stage.settled(&idle).await;
    Report::new(plan.seed, began, done, seen, meters, idle, after, leftovers, stage.end().await)
}

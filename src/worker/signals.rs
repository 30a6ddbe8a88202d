//! Signals: SIGTERM, SIGINT and SIGQUIT end the process gracefully, a second one at once; SIGHUP reloads; SIGUSR1
//! reopens the access log. And what a supervisor says.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::above::{Above, Order, Orders};
use super::instance::Instance;
use super::shutdown::{Hurry, Way};
use super::successor;
use crate::control::Handle;
use crate::control::api::{Author, Change, Request};
use crate::handover::{FromWorker, ToWorker, UpgradeResult};
use crate::telemetry::{Counts, Event};

/// Exit code when work was cut.
const CUT: u8 = 3;

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Before anything can be seen of the process: from then on a signal waits until [`serve`] looks,
    /// instead of ending the process on the spot.
    pub fn listen() -> std::io::Result<Signals> {
        // Registering asks for a runtime; what is heard goes to whichever runs later.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Serves until told to stop, or until a successor serves.
pub fn serve(instance: Instance, mut signals: Signals, mut orders: Option<Orders>) -> ExitCode {
    let runtime = instance.runtime().clone();
    let reason = runtime.block_on(until_end(&instance, &mut signals, &mut orders));
    let hurry = Hurry::default();
    let (way, counts) = match &reason {
        Reason::Retired(counts) => (Way::Retire, Some(counts.clone())),
        Reason::Told | Reason::ControlLost => (Way::Stop, None),
    };
    if way == Way::Retire {
        runtime.spawn(successor::say_what_is_left(
            instance.above.clone(),
            instance.handle.clone(),
            instance.connections.clone(),
        ));
    }
    let watched = Watched { handle: instance.handle.clone(), access_log: instance.access_log.clone() };
    runtime.spawn(watch_the_end(signals, orders, way, hurry.clone(), watched));
    let ended = instance.shutdown(way, hurry, counts);
    match reason {
        Reason::ControlLost => ExitCode::FAILURE,
        Reason::Told | Reason::Retired(_) if ended.cut > 0 => ExitCode::from(CUT),
        Reason::Told | Reason::Retired(_) => ExitCode::SUCCESS,
    }
}

/// What orders and signals still reach.
struct Watched {
    handle: Handle,
    access_log: crate::telemetry::AccessLog,
}

/// A retired process has time until the first signal; every process ends at once on the one after.
async fn watch_the_end(signals: Signals, mut orders: Option<Orders>, way: Way, hurry: Hurry, watched: Watched) {
    let Signals { terminate, interrupt, quit, mut reopen, .. } = signals;
    let mut ends = [terminate, interrupt, quit];
    let mut told = way == Way::Stop;
    loop {
        tokio::select! {
            () = any(&mut ends) => {
                if told {
                    warn!("second signal: ending now");
                    hurry.now.cancel();
                    return;
                }
                info!("told to end: what still runs has the time of a shutdown");
                told = true;
                hurry.soon.cancel();
            }
            order = next(&mut orders) => match order {
                // Its own control decides nothing any more.
                Some(Order { message: ToWorker::Held { services }, .. }) => watched.handle.hold_only(&services),
                Some(_) => {}
                None => {
                    // Nobody waits for what this process would say.
                    orders = None;
                    told = true;
                    hurry.soon.cancel();
                }
            },
            _ = reopen.recv() => watched.access_log.reopen(),
        }
    }
}

async fn any([one, other, third]: &mut [Signal; 3]) {
    tokio::select! { _ = one.recv() => {}, _ = other.recv() => {}, _ = third.recv() => {} }
}

/// Why the process ends.
enum Reason {
    Told,
    /// Another one serves; with what this one had counted when it was frozen.
    Retired(Counts),
    /// Control has died: whoever runs the process is to start it again.
    ControlLost,
}

async fn until_end(instance: &Instance, signals: &mut Signals, orders: &mut Option<Orders>) -> Reason {
    let (urgent, mut calls) = mpsc::unbounded_channel();
    let mut frozen = None;
    let mut published = instance.handle.live().subscribe();
    let (_, mut told) = instance.handle.events().subscribe(0);
    // Those that retire may have missed what another process before this one released.
    instance.say_held();
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Reason::Told,
            _ = signals.interrupt.recv() => return Reason::Told,
            _ = signals.quit.recv() => return Reason::Told,
            () = instance.handle.lost() => {
                error!("control has ended unexpectedly: nothing can be changed any more; finishing what runs and ending");
                return Reason::ControlLost;
            }
            order = next(orders) => match (order, &instance.above) {
                (Some(Order { message: ToWorker::Freeze, .. }), Some(above)) => {
                    frozen = instance.freeze(above, urgent.clone()).await;
                }
                (Some(Order { message: ToWorker::Retire, .. }), _) => {
                    return Reason::Retired(frozen.unwrap_or_default());
                }
                (Some(order), Some(above)) => obey(instance, above, order).await,
                (None, _) | (_, None) => {
                    error!("the supervisor is gone: nobody keeps the sockets; finishing what runs and ending");
                    return Reason::Told;
                }
            },
            Some(why) = calls.recv() => if let Some(above) = &instance.above {
                above.say(&FromWorker::Reclaim { why });
            },
            Ok(()) = published.changed() => if let Some(above) = &instance.above {
                instance.tell_ready_timeout(above);
            },
            event = told.recv() => match event {
                Ok(event) if !matches!(&*event.kind, "hold" | "release") => {}
                // Missed some, or held, or released.
                Ok(_) | Err(RecvError::Lagged(_)) => instance.say_held(),
                Err(RecvError::Closed) => return Reason::ControlLost,
            },
            // On its own: frozen, control answers when the orders that follow here have been obeyed.
            _ = signals.hangup.recv() => drop(tokio::spawn(reload(instance.handle.clone(), instance.above.clone()))),
            _ = signals.upgrade.recv() => {
                warn!("SIGUSR2 asks a supervisor for an upgrade, and this process is none: nothing is done");
            }
            _ = signals.reopen.recv() => instance.access_log.reopen(),
        }
    }
}

async fn reload(handle: Handle, above: Option<Arc<Above>>) {
    let request = Request { change: Change::Reload, author: Author("signal:SIGHUP".into()), if_match: None };
    match handle.request(request).await {
        Ok(receipt) => info!(generation = receipt.generation, changed = receipt.changed, "reloaded on SIGHUP"),
        Err(refused) => warn!(?refused, "reload on SIGHUP refused; the running generation keeps serving"),
    }
    if let Some(above) = above {
        above.say(&FromWorker::Reloaded);
    }
}

/// The next order; never, without a supervisor. `None`: it is gone.
async fn next(orders: &mut Option<Orders>) -> Option<Order> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

async fn obey(instance: &Instance, above: &Above, order: Order) {
    match order.message {
        ToWorker::Ping { nth } => above.say(&FromWorker::Pong { nth }),
        ToWorker::Thaw { why } => {
            warn!(why, "there is no successor");
            instance.handle.thaw().await;
        }
        ToWorker::Upgraded(outcome) => {
            instance.upgraded(&outcome);
            if outcome.result == UpgradeResult::Ok && outcome.pid != std::process::id() {
                // Before who asked hears of it: the next question is the new process's.
                instance.admin.leave();
            }
            above.answered(outcome);
        }
        ToWorker::Counted => successor::counted(order.fd, &instance.telemetry),
        ToWorker::Left { pid, left } => instance.retired(pid, Some(left)),
        ToWorker::Gone { pid } => instance.retired(pid, None),
        ToWorker::Welcome { restarted, tally } => {
            successor::tally(&tally);
            if let Some(how) = restarted {
                let message = format!("the worker before ended: {how}; this one serves on the same sockets");
                instance.handle.events().emit(Event { kind: "worker_restarted", message, ..Event::default() });
            }
        }
        // Answered where they were asked for, or handled before.
        ToWorker::Bound { .. } | ToWorker::NotBound { .. } | ToWorker::State | ToWorker::Freeze | ToWorker::Retire => {}
        // For those that only finish.
        ToWorker::Held { .. } => {}
    }
}

impl Default for Hurry {
    fn default() -> Hurry {
        Hurry { soon: CancellationToken::new(), now: CancellationToken::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Source;

    /// The two that write (the thread that keeps the journal, the task that changes what is live) end together.
    #[test]
    fn a_journal_that_has_died_ends_the_process_with_1_after_its_work() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = format!(
            "schema: 1\nstate_dir: {}\nshutdown: {{ pre_drain: 0s, linger: 0s, timeout: 3s }}\nlisteners: {{ web: {{ bind: \"127.0.0.1:0\" }} }}\nroutes: [{{ name: hello, match: {{ path: /hello }}, respond: {{ status: 200, body: hello }} }}]\n",
            dir.path().join("state").display()
        );
        let signals = Signals::listen().expect("registered");
        let instance = Instance::start(Source::Text { name: "test.yaml".into(), text }, 1).expect("started");
        instance.handle.break_journal();
        assert_eq!(serve(instance, signals, None), ExitCode::FAILURE);
        crate::journal::Journal::open(&dir.path().join("state"), Default::default()).expect("the lock went with it");
    }
}

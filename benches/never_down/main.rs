//! What clients notice of upgrades, reloads and crashes, beside nginx and haproxy doing the same.
//!
//! ```text
//! cargo bench --bench never_down [-- --only upgrades,reloads,kills,rate]
//! ```
//!
//! `benches/README.md` says what is measured. Loopback only, bounded in count and time; ends only the processes it
//! started.

mod clients;
#[path = "../../examples/soak/run/dice.rs"]
mod dice;
#[allow(dead_code, reason = "shared with the bench `e2e`, which needs more of it")]
#[path = "../e2e/machine.rs"]
mod machine;
#[path = "../e2e/origin.rs"]
mod origin;
mod peers;
#[path = "../e2e/poller.rs"]
mod poller;
#[path = "../e2e/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use comfy_table::Table;
use tokio::runtime::Handle;

use clients::{Load, once};
use peers::{Kind, Peer};
use table::table;

/// After the last change: as long as the longest thought.
const AFTERMATH: Duration = Duration::from_secs(9);
/// One at a time with nobody in the queue: what the connections themselves cost.
const SETTLES: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Upgrades,
    Reloads,
    Kills,
    Rate,
}

#[derive(Parser)]
#[command(name = "never_down", about = "Compares what clients notice of upgrades, reloads and crashes")]
struct Options {
    /// Keep-alive clients of each proxy
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=2000))]
    clients: u64,
    #[arg(long, default_value_t = 20)]
    upgrades: u32,
    #[arg(long, default_value_t = 100)]
    reloads: u32,
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// Seconds from one upgrade to the next
    #[arg(long, default_value_t = 2.5)]
    upgrade_every: f64,
    /// Seconds from one reload to the next
    #[arg(long, default_value_t = 0.5)]
    reload_every: f64,
    /// Clients that each open one connection after another, for the highest rate
    #[arg(long, default_value_t = 256)]
    at_once: u64,
    /// Which parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Given by `cargo bench`; `cargo test --benches` does not give it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("this measures for minutes: run it by `cargo bench --bench never_down`");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    machine::raise_open_files();
    adopt_orphans();
    let (_, core) = machine::two_cores().ok_or("two cores are needed")?;
    let [origin] = origin::start(core, 1)?[..] else { return Err("one origin was asked for".into()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        match kind.program() {
            Ok(_) => kinds.push(kind),
            Err(why) => println!("{} skipped: {why}", kind.name()),
        }
    }
    let bench = Bench { options, origin, runtime: runtime.handle(), kinds };
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    if wanted(Part::Upgrades) {
        let every = Duration::from_secs_f64(options.upgrade_every);
        println!("{}\n", bench.changes("upgrades", options.upgrades, every, Peer::upgrade)?);
    }
    if wanted(Part::Reloads) {
        let every = Duration::from_secs_f64(options.reload_every);
        println!("{}\n", bench.changes("reloads", options.reloads, every, Peer::reload)?);
    }
    if wanted(Part::Kills) {
        println!("{}\n", bench.kills()?);
    }
    if wanted(Part::Rate) {
        println!("{}", bench.rate()?);
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    origin: SocketAddr,
    runtime: &'a Handle,
    kinds: Vec<Kind>,
}

impl Bench<'_> {
    /// All proxies at the same time, each with its own clients, so that all have the same machine.
    fn changes(
        &self,
        what: &str,
        times: u32,
        every: Duration,
        change: fn(&mut Peer) -> io::Result<()>,
    ) -> Result<Table, Box<dyn Error>> {
        let mut peers =
            self.kinds.iter().map(|kind| Peer::start(*kind, self.origin)).collect::<io::Result<Vec<_>>>()?;
        let loads: Vec<Load> =
            peers.iter().map(|peer| Load::keep_alive(self.runtime, peer.address, self.options.clients)).collect();
        thread::sleep(SETTLES * 3);
        let changed = thread::scope(|scope| {
            let changing =
                peers.iter_mut().map(|peer| scope.spawn(move || again_and_again(peer, times, every, change)));
            let changing: Vec<_> = changing.collect();
            changing.into_iter().map(|one| one.join().expect("it does not panic")).collect::<Vec<_>>()
        });
        thread::sleep(AFTERMATH);
        let head = format!("{times} {what}, {} POST clients", self.options.clients);
        let mut table = table(&[
            &head,
            "done",
            "requests",
            "broken",
            "how",
            "closed while thinking",
            "told to close",
            "each ms, p50",
            "max",
        ]);
        for ((peer, load), took) in peers.iter().zip(loads).zip(changed) {
            let book = load.stop(self.runtime);
            let broken = book.broken();
            table.add_row([
                peer.kind.name().to_string(),
                took.len().to_string(),
                (book.answered() + broken.values().sum::<u64>()).to_string(),
                broken.values().sum::<u64>().to_string(),
                listed(&broken),
                book.closed_idle.load(Ordering::Relaxed).to_string(),
                book.told.load(Ordering::Relaxed).to_string(),
                took.get(took.len() / 2).map_or("-".into(), |half| millis(*half)),
                took.last().map_or("-".into(), |longest| millis(*longest)),
            ]);
        }
        Ok(table)
    }

    /// One proxy after another: `kill -9` of all that serves, in a row, and once more with a fresh start for each.
    fn kills(&self) -> Result<Table, Box<dyn Error>> {
        let times = self.options.kills;
        let head = format!("{times} x kill -9");
        let mut table = table(&[
            &head,
            "requests",
            "refused",
            "lost in flight",
            "ms to the first answer",
            "the same, each the first",
        ]);
        for kind in &self.kinds {
            let mut peer = Peer::start(*kind, self.origin)?;
            let load = Load::fresh(self.runtime, peer.address, 16, Duration::from_millis(2));
            let mut gaps = Vec::new();
            for _ in 0..times {
                thread::sleep(SETTLES);
                gaps.push(self.gap(&mut peer)?);
            }
            thread::sleep(SETTLES);
            let book = load.stop(self.runtime);
            let broken = book.broken();
            let refused = broken.get("refused").copied().unwrap_or(0);
            let all = broken.values().sum::<u64>();
            drop(peer);
            let mut alone = Vec::new();
            for _ in 0..times {
                let mut peer = Peer::start(*kind, self.origin)?;
                thread::sleep(SETTLES / 2);
                alone.push(self.gap(&mut peer)?);
            }
            let listed = |gaps: &[Duration]| gaps.iter().map(|gap| millis(*gap)).collect::<Vec<_>>().join(" ");
            table.add_row([
                kind.name().to_string(),
                (book.answered() + all).to_string(),
                refused.to_string(),
                (all - refused).to_string(),
                listed(&gaps),
                listed(&alone),
            ]);
        }
        Ok(table)
    }

    /// From the signal to a whole answer for somebody who comes after it.
    fn gap(&self, peer: &mut Peer) -> io::Result<Duration> {
        peer.kill_workers()?;
        let began = Instant::now();
        let address = peer.address;
        loop {
            if self.runtime.block_on(once(address)).is_ok() {
                return Ok(began.elapsed());
            }
            peer.revive()?;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// One proxy after another: as many new connections as the machine can do, through upgrades.
    fn rate(&self) -> Result<Table, Box<dyn Error>> {
        let upgrades = self.options.upgrades / 2;
        let head = format!("{upgrades} upgrades, {} clients, no pause", self.options.at_once);
        let mut table = table(&[
            &head,
            "done",
            "connections",
            "per s",
            "quiet per s",
            "failed",
            "how",
            "longest ms",
            "quiet",
            "ListenOverflows",
            "ListenDrops",
        ]);
        for kind in &self.kinds {
            let mut peer = Peer::start(*kind, self.origin)?;
            let load = Load::fresh(self.runtime, peer.address, self.options.at_once, Duration::ZERO);
            thread::sleep(SETTLES);
            load.book.forget_longest();
            let (began, before) = (Instant::now(), load.book.answered());
            thread::sleep(SETTLES * 3);
            let quiet = (load.book.answered() - before) as f64 / began.elapsed().as_secs_f64();
            let quiet_longest = load.book.longest();
            load.book.forget_longest();
            let counters = Counters::read()?;
            let (began, before) = (Instant::now(), load.book.answered());
            let done = again_and_again(&mut peer, upgrades, SETTLES, Peer::upgrade).len();
            thread::sleep(SETTLES);
            let answered = load.book.answered() - before;
            let rate = answered as f64 / began.elapsed().as_secs_f64();
            let book = load.stop(self.runtime);
            let now = Counters::read()?;
            let broken = book.broken();
            table.add_row([
                kind.name().to_string(),
                done.to_string(),
                answered.to_string(),
                format!("{rate:.0}"),
                format!("{quiet:.0}"),
                broken.values().sum::<u64>().to_string(),
                listed(&broken),
                millis(book.longest()),
                millis(quiet_longest),
                format!("{} -> {}", counters.overflows, now.overflows),
                format!("{} -> {}", counters.drops, now.drops),
            ]);
        }
        Ok(table)
    }
}

/// How long each change took, the shortest first. One that does not come about is said and left out.
fn again_and_again(
    peer: &mut Peer,
    times: u32,
    every: Duration,
    change: fn(&mut Peer) -> io::Result<()>,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for nth in 1..=times {
        let began = Instant::now();
        match change(peer) {
            Ok(()) => took.push(began.elapsed()),
            Err(problem) => eprintln!("change {nth}: {problem}"),
        }
        thread::sleep(every.saturating_sub(began.elapsed()));
    }
    took.sort_unstable();
    took
}

/// What the kernel threw away because nobody took it from a listening socket. Of this network namespace.
struct Counters {
    overflows: u64,
    drops: u64,
}

impl Counters {
    fn read() -> io::Result<Counters> {
        let text = std::fs::read_to_string("/proc/net/netstat")?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return Err(io::Error::other("/proc/net/netstat has no TcpExt"));
        };
        let of = |wanted: &str| {
            let pairs = names.split_whitespace().zip(values.split_whitespace());
            pairs.into_iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok())
        };
        let counter = |name: &str| of(name).ok_or_else(|| io::Error::other(format!("/proc/net/netstat has no {name}")));
        Ok(Counters { overflows: counter("ListenOverflows")?, drops: counter("ListenDrops")? })
    }
}

/// A master whose parent has ended becomes our child.
fn adopt_orphans() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

fn listed(broken: &BTreeMap<&'static str, u64>) -> String {
    broken.iter().map(|(how, count)| format!("{count} {how}")).collect::<Vec<_>>().join("; ")
}

fn millis(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1000.0)
}

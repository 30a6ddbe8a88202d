//! End to end: what a proxied request costs and what a change breaks, beside bare Pingora, nginx and haproxy.
//!
//! ```text
//! cargo bench --bench e2e [-- --rounds 5 --seconds 1 --only switchback,nginx]
//! ```
//!
//! `benches/README.md` says what is measured and how to read it. Loopback only, bounded in count and
//! time; ends only the processes it started.

mod health;
mod load;
mod machine;
mod origin;
mod poller;
mod proxies;
mod report;
mod table;
mod tls;
mod upstream;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use load::{Ask, Load};
use proxies::{Kind, Proxy, Running};
use report::{Changes, Memory, Sample};

const WARM_UP: Duration = Duration::from_millis(250);
/// Slower than a poll of the file, in case the events of the file system are lost.
const EFFECT: Duration = Duration::from_secs(8);
/// Between the effect of one change and the next.
const BETWEEN: Duration = Duration::from_millis(200);
const CHANGES: usize = 8;
/// Fewer where the limit of open files asks for it.
const IDLE_CLIENTS: usize = 5000;
const IDLE_TLS_CLIENTS: usize = 10_000;

#[derive(Parser)]
#[command(name = "e2e", about = "Compares switchback with bare Pingora, nginx and haproxy")]
struct Options {
    /// Times that every proxy is visited in every cell
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds measured per visit
    #[arg(long, default_value = "1", value_parser = seconds)]
    seconds: Duration,
    /// Which proxies, by the first word of their name
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure TLS instead of everything else
    #[arg(long)]
    tls: bool,
    /// Measure what health checks cost instead of everything else
    #[arg(long, conflicts_with = "tls")]
    health: bool,
    /// Measure TLS to endpoints instead of everything else
    #[arg(long, conflicts_with_all = ["tls", "health"])]
    upstream_tls: bool,
    /// Say what would be compared, and stop
    #[arg(long)]
    list: bool,
    /// Given by `cargo bench`; `cargo test --benches` does not give it
    #[arg(long, hide = true)]
    bench: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("between 0.1 and 60".to_string())
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("this measures for minutes: run it by `cargo bench --bench e2e`");
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
    let (proxy_core, load_core) = machine::two_cores().ok_or("two cores are needed: one for the proxy alone")?;
    let idle_clients = IDLE_CLIENTS.min(machine::raise_open_files() / 3);
    let origins = origin::start(load_core, 2)?.try_into().map_err(|_| "two addresses were asked for")?;
    let place = Place { proxy_core, load_core, idle_clients, origins };
    let proxies = place.wanted(options)?;
    if options.list {
        return Ok(());
    }
    if options.health {
        return health::run(&place, &proxies, options.rounds, options.seconds);
    }
    if options.upstream_tls {
        return upstream::run(&place, &proxies, options.rounds, options.seconds);
    }
    if options.tls {
        // One descriptor each, in this process and in the proxy's; the origin has as many as requests at once.
        let idle_clients = IDLE_TLS_CLIENTS.min(machine::raise_open_files().saturating_sub(1000));
        let (rounds, long) = (options.rounds, options.seconds);
        let Place { proxy_core, load_core, origins, .. } = place;
        let tls = tls::Place { proxy_core, load_core, origin: origins[0], rounds, long, idle_clients };
        return tls.run(&proxies, &tls::Secure::new()?);
    }
    let kinds = proxies.iter().map(|proxy| proxy.kind).collect::<Vec<_>>();
    println!("\n{} rounds of {:?}, 64 clients; medians of rounds\n", options.rounds, options.seconds);

    for (title, ask) in cells() {
        let mut samples = Vec::new();
        for round in 0..usize::from(options.rounds) {
            for proxy in proxies::in_turn(round, proxies.iter()) {
                samples.push(place.measure(proxy, &ask, round, options.seconds)?);
            }
        }
        println!("{}\n", report::cell(title, &samples, &kinds));
        if let Some(ratio) = report::ratio(&samples, Kind::Switchback, Kind::Bare) {
            let verdict = if ratio <= 1.10 { "held" } else { "missed" };
            println!("budget: at most 1.10 x bare Pingora, is {ratio:.2}: {verdict}\n");
        }
    }
    let memory = proxies.iter().map(|proxy| place.hold_idle(proxy)).collect::<Result<Vec<_>, _>>()?;
    println!("{}\n", report::memory(&memory));
    let reloading = proxies.iter().filter(|proxy| proxy.kind.reloads());
    let changes = reloading.map(|proxy| place.change(proxy)).collect::<Result<Vec<_>, _>>()?;
    println!("{}", report::changes(&changes));
    Ok(())
}

fn cells() -> [(&'static str, Ask); 4] {
    let get = Ask { path: "/small", body: 0, clients: 64, every: None, ramp: Duration::ZERO };
    let every = Duration::from_micros(64_000_000 / 3000);
    [
        ("GET 1 KiB", get.clone()),
        ("GET 100 KiB", Ask { path: "/large", ..get.clone() }),
        ("POST 16 KiB", Ask { path: "/post", body: 16 * 1024, ..get.clone() }),
        ("GET 1 KiB, 3000/s", Ask { every: Some(every), ramp: every, ..get }),
    ]
}

/// Where everything runs.
struct Place {
    proxy_core: usize,
    load_core: usize,
    idle_clients: usize,
    origins: [SocketAddr; 2],
}

impl Place {
    /// The proxies to compare, with a line about each. What is not installed or does not start is left
    /// out; that is an error for those of this repository.
    fn wanted(&self, options: &Options) -> Result<Vec<Proxy>, String> {
        let mut proxies = Vec::new();
        for kind in Kind::ALL {
            let name = kind.name();
            let first = name.split(' ').next().unwrap_or(name);
            if !options.only.is_empty() && !options.only.iter().any(|only| only == first) {
                continue;
            }
            let found = proxies::find(kind);
            match found.and_then(|proxy| self.start(&proxy).map(|_| proxy).map_err(|problem| problem.to_string())) {
                Ok(proxy) => {
                    println!("{name:<13} {} {}", proxy.version, proxy.program.display());
                    proxies.push(proxy);
                }
                Err(why) if kind.is_ours() => return Err(format!("{name}: {why}")),
                Err(why) => println!("{name:<13} skipped: {why}"),
            }
        }
        Ok(proxies)
    }

    fn start(&self, proxy: &Proxy) -> std::io::Result<Running> {
        Running::start(proxy, self.origins[0], self.proxy_core, None)
    }

    fn measure(&self, proxy: &Proxy, ask: &Ask, round: usize, long: Duration) -> std::io::Result<Sample> {
        self.measure_running(&self.start(proxy)?, ask, round, long)
    }

    fn measure_running(&self, running: &Running, ask: &Ask, round: usize, long: Duration) -> std::io::Result<Sample> {
        let load = Load::start(ask.clone(), running.address, self.load_core);
        thread::sleep(WARM_UP);
        let processes = running.processes();
        load.progress.record.store(true, Ordering::Relaxed);
        let (began, answered, times) =
            (Instant::now(), load.progress.answered.load(Ordering::Relaxed), machine::times(&processes));
        thread::sleep(long);
        let (answers, now) = (load.progress.answered.load(Ordering::Relaxed) - answered, machine::times(&processes));
        let took = began.elapsed();
        load.progress.record.store(false, Ordering::Relaxed);
        let mut outcome = load.stop()?;
        Ok(Sample {
            kind: running.kind,
            round,
            cpu: (now.running - times.running) as f64 / 1000.0 / answers.max(1) as f64,
            rate: answers as f64 / took.as_secs_f64(),
            p50: f64::from(outcome.percentile(0.50)),
            p99: f64::from(outcome.percentile(0.99)),
            wait: (now.waiting - times.waiting) as f64 / took.as_nanos() as f64,
            broken: outcome.broken_total(),
        })
    }

    /// Memory that grows with clients that asked once and keep their connection.
    fn hold_idle(&self, proxy: &Proxy) -> std::io::Result<Memory> {
        let running = self.start(proxy)?;
        let start_kib = machine::pss_kib(&running.processes());
        // What any traffic costs once is not the clients' share.
        let busy = Ask { path: "/small", body: 0, clients: 64, every: None, ramp: Duration::ZERO };
        let load = Load::start(busy, running.address, self.load_core);
        thread::sleep(WARM_UP);
        load.stop()?;
        let busy_kib = machine::pss_kib(&running.processes());
        let (never_again, ramp) = (Some(Duration::from_secs(3600)), Duration::from_secs(1));
        let ask = Ask { path: "/small", body: 0, clients: self.idle_clients, every: never_again, ramp };
        let load = Load::start(ask, running.address, self.load_core);
        let deadline = Instant::now() + Duration::from_secs(10);
        let answered = || load.progress.answered.load(Ordering::Relaxed) as usize;
        while answered() < self.idle_clients && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let clients = answered().max(1);
        let grown_kib = machine::pss_kib(&running.processes()).saturating_sub(busy_kib);
        load.stop()?;
        Ok(Memory { kind: proxy.kind, start_kib, clients, grown_kib })
    }

    /// Changes the origin again and again under clients that never retry.
    fn change(&self, proxy: &Proxy) -> std::io::Result<Changes> {
        let mut running = self.start(proxy)?;
        let every = Duration::from_millis(20);
        let ask = Ask { path: "/post", body: 1024, clients: 40, every: Some(every), ramp: every };
        let load = Load::start(ask, running.address, self.load_core);
        thread::sleep(WARM_UP);
        let mut effects = Vec::new();
        for nth in 1..=CHANGES {
            let to = nth % 2;
            let answered_by_new = || load.progress.answered_by[to].load(Ordering::Relaxed);
            let (began, before) = (Instant::now(), answered_by_new());
            running.change(self.origins[to])?;
            while answered_by_new() == before && began.elapsed() < EFFECT {
                thread::sleep(Duration::from_micros(200));
            }
            effects.push((answered_by_new() > before).then(|| began.elapsed()));
            thread::sleep(BETWEEN);
        }
        let outcome = load.stop()?;
        Ok(Changes {
            kind: proxy.kind,
            changes: CHANGES,
            requests: outcome.answered + outcome.broken_total(),
            broken: outcome.broken,
            closed_idle: outcome.closed_idle,
            effects,
        })
    }
}

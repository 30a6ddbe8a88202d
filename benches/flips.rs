//! How fast a failing canary loses its traffic: automatic rollbacks under load, by their receipts and by the clients.
//!
//! ```text
//! cargo bench --bench flips [-- --flips 200 --clients 32]
//! ```
//!
//! Proxy, both versions and the clients are one process. Each round begins a rollout to a version that answers
//! 500; the proxy takes it back by itself. The receipt has the time from the judged failure (the trigger) to the
//! store of the new generation, and to the last request that began on the old one.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use switchback::control::Source;
use switchback::control::api::{Author, Change, Receipt, Request, RolloutAction};
use switchback::worker::Instance;

/// Longest wait for one rollback.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(name = "flips", about = "Measures automatic rollbacks under load")]
struct Options {
    /// Rollouts that are begun and taken back
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    flips: u32,
    /// Keep-alive clients that never wait
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: u32,
    /// Given by `cargo bench`; `cargo test --benches` does not give it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("this measures for a minute: run it by `cargo bench --bench flips`");
        return ExitCode::SUCCESS;
    }
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let (good, bad) = (origin("200 OK", "v1")?, origin("500 Internal Server Error", "v2")?);
    let text = format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:0 }} }}\nadmin: {{ bind: 127.0.0.1:0 }}\n\
         shutdown: {{ pre_drain: 0s, linger: 100ms, timeout: 3s }}\n\
         routes: [{{ name: all, service: shop }}]\nservices:\n  shop:\n    versions:\n\
         \x20     v1: {{ endpoints: [\"{good}\"] }}\n      v2: {{ endpoints: [\"{bad}\"] }}\n    active: v1\n\
         \x20   rollout: {{ stages: [25%, 100%], shield: {{ budget: 100% }}, promote_when: {{ hold: 1h }} }}\n"
    );
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(2);
    let instance = Instance::start(Source::Text { name: "flips.yaml".into(), text }, threads)?;
    let proxy = instance.address("web").ok_or("no listener")?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..options.clients)
        .map(|_| {
            let (stop, sent, failed) = (stop.clone(), sent.clone(), failed.clone());
            std::thread::spawn(move || client(proxy, &stop, &sent, &failed))
        })
        .collect();
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let receipts = runtime.block_on(flip(&instance, options.flips));
    let seconds = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| "a client panicked")?;
    }
    instance.stop();
    let receipts = receipts?;
    let (sent, failed) = (sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    println!(
        "{} automatic rollbacks at {:.0} requests/s, {failed} of {sent} requests failed",
        receipts.len(),
        sent as f64 / seconds
    );
    println!("{:<58} {:>7} {:>7} {:>7}", "microseconds after the failure that decided", "p50", "p99", "max");
    for (what, of) in [
        ("new generation stored", (|receipt| receipt.flip_micros) as fn(&Receipt) -> u64),
        ("last request that began on the old generation", |receipt| receipt.last_old_start_micros),
    ] {
        let mut all: Vec<u64> = receipts.iter().map(of).collect();
        all.sort_unstable();
        let at = |share: f64| all[((all.len() as f64 * share).ceil() as usize).clamp(1, all.len()) - 1];
        println!("{what:<58} {:>7} {:>7} {:>7}", at(0.5), at(0.99), at(1.0));
    }
    if failed > 0 { Err("clients saw failures".into()) } else { Ok(()) }
}

/// Begins a rollout, waits until it is taken back, and again.
async fn flip(instance: &Instance, flips: u32) -> Result<Vec<Receipt>, Box<dyn Error>> {
    let mut receipts = Vec::new();
    let (_, mut events) = instance.handle.events().subscribe(0);
    for _ in 0..flips {
        let action = RolloutAction::Start { to: Some("v2".into()), again: true };
        let change = Change::Rollout { service: "shop".into(), action };
        let request = Request { change, author: Author("bench".into()), if_match: None };
        instance.handle.request(request).await.map_err(|refused| format!("{refused:?}"))?;
        let receipt = async {
            loop {
                let event = events.recv().await.map_err(|error| error.to_string())?;
                if event.kind == "receipt"
                    && event.data["cause"].as_str().is_some_and(|why| why.starts_with("rollback"))
                {
                    return serde_json::from_value::<Receipt>(event.data).map_err(|error| error.to_string());
                }
            }
        };
        receipts.push(tokio::time::timeout(PATIENCE, receipt).await.map_err(|_| "nothing went back in time")??);
    }
    Ok(receipts)
}

/// Answers every request on every connection in the same way.
fn origin(status: &'static str, name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || answer(socket, status, name));
        }
    });
    Ok(address)
}

fn answer(mut socket: TcpStream, status: &str, name: &str) -> Option<()> {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{name}", name.len());
    let mut buffer = Vec::new();
    let mut some = [0; 4096];
    socket.set_nodelay(true).ok()?;
    loop {
        let read = socket.read(&mut some).ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&some[..read]);
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            socket.write_all(answer.as_bytes()).ok()?;
        }
    }
}

/// Asks without a pause and never retries.
fn client(proxy: SocketAddr, stop: &AtomicBool, sent: &AtomicU64, failed: &AtomicU64) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let good = ask(proxy, &mut connection).is_some_and(|status| status == 200);
        sent.fetch_add(1, Ordering::Relaxed);
        if !good {
            failed.fetch_add(1, Ordering::Relaxed);
            connection = None;
        }
    }
}

fn ask(proxy: SocketAddr, connection: &mut Option<TcpStream>) -> Option<u16> {
    let socket = match connection {
        Some(socket) => socket,
        None => connection.insert(TcpStream::connect(proxy).ok()?),
    };
    socket.set_nodelay(true).ok()?;
    socket.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").ok()?;
    let mut buffer = Vec::new();
    let mut some = [0; 4096];
    loop {
        let read = socket.read(&mut some).ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&some[..read]);
        let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        // Every answer has a body of two bytes, the proxy's own ones more: those are failures anyway.
        if buffer.len() >= head + 4 + 2 {
            return std::str::from_utf8(buffer.get(9..12)?).ok()?.parse().ok();
        }
    }
}

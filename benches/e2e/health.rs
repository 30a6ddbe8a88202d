//! `--health`: what it costs to check a thousand endpoints each second, and what requests feel of it.

use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::Ask;
use crate::proxies::{Kind, Proxy, Running};
use crate::{Place, machine, origin, report};

const ENDPOINTS: usize = 1000;
/// Until every endpoint was checked, and the connections to them are made.
const WARM_UP: Duration = Duration::from_secs(4);

pub fn run(place: &Place, proxies: &[Proxy], rounds: u16, long: Duration) -> Result<(), Box<dyn Error>> {
    let proxy = proxies.iter().find(|proxy| proxy.kind == Kind::Switchback).ok_or("only switchback is measured")?;
    let endpoints = origin::start(place.load_core, ENDPOINTS)?;
    let every = Duration::from_micros(64_000_000 / 1000);
    let ask = Ask { path: "/small", body: 0, clients: 64, every: Some(every), ramp: every };
    println!("\n{ENDPOINTS} endpoints; {rounds} rounds of {long:?}, medians of rounds\n");
    let ways = [
        ("not checked", String::new()),
        ("HTTP, every 1s", "health: { path: /small, every: 1s }".to_string()),
        ("TCP, every 1s", "health: { tcp: true, every: 1s }".to_string()),
    ];
    let mut rows = Vec::new();
    for (what, health) in ways {
        let (mut idle, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..usize::from(rounds) {
            let running = Running::start_with(proxy, &text(&endpoints, &health), place.proxy_core)?;
            thread::sleep(WARM_UP);
            let processes = running.processes();
            let (began, before) = (Instant::now(), machine::times(&processes));
            thread::sleep(long);
            let used = machine::times(&processes).running - before.running;
            idle.push(used as f64 / 1e6 / began.elapsed().as_secs_f64());
            let sample = place.measure_running(&running, &ask, round, long)?;
            if sample.broken > 0 {
                return Err(format!("{what}: {} requests were broken", sample.broken).into());
            }
            p50.push(sample.p50 / 1000.0);
            p99.push(sample.p99 / 1000.0);
        }
        rows.push((what, [idle, p50, p99].map(report::median)));
    }
    println!("{}", report::health(&rows));
    Ok(())
}

fn text(endpoints: &[SocketAddr], health: &str) -> String {
    let mut list = String::new();
    for endpoint in endpoints {
        write!(list, "\"{endpoint}\", ").expect("memory is there");
    }
    format!(
        r#"routes: [{{ name: all, match: {{ path_prefix: / }}, service: origin }}]
services:
  origin:
    versions: {{ v1: {{ endpoints: [{list}] }} }}
    active: v1
    {health}
"#
    )
}

//! Medians, ratios and tables.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proxies::Kind;
use crate::table::table;

/// One proxy in one cell of one round.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub kind: Kind,
    pub round: usize,
    /// CPU microseconds per request.
    pub cpu: f64,
    /// Requests per second.
    pub rate: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Share of time it was runnable without a core.
    pub wait: f64,
    pub broken: u64,
}

/// What eight changes did to clients that never retry.
#[derive(Debug, Clone)]
pub struct Changes {
    pub kind: Kind,
    pub changes: usize,
    pub requests: u64,
    pub broken: BTreeMap<&'static str, u64>,
    pub closed_idle: u64,
    /// From telling the proxy to the first answer by the new origin; `None`: never seen.
    pub effects: Vec<Option<Duration>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub kind: Kind,
    pub start_kib: u64,
    pub clients: usize,
    pub grown_kib: u64,
}

pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(numbers[middle]),
        _ => Some((numbers[middle - 1] + numbers[middle]) / 2.0),
    }
}

/// Median of the ratios of CPU time within each round; `None` if the two never met in one.
pub fn ratio(samples: &[Sample], of: Kind, to: Kind) -> Option<f64> {
    let in_round = |kind: Kind, round: usize| {
        samples.iter().find(|sample| sample.kind == kind && sample.round == round).map(|sample| sample.cpu)
    };
    let rounds = samples.iter().filter(|sample| sample.kind == of).map(|sample| sample.round);
    median(rounds.filter_map(|round| Some(in_round(of, round)? / in_round(to, round)?)).collect())
}

pub fn cell(title: &str, samples: &[Sample], kinds: &[Kind]) -> String {
    let mut table =
        table(&[title, "CPU µs/request", "best", "x nginx", "x bare", "req/s", "p50 ms", "p99 ms", "wait", "broken"]);
    for kind in kinds {
        let own = samples.iter().filter(|sample| sample.kind == *kind).collect::<Vec<_>>();
        let of = |pick: fn(&Sample) -> f64| median(own.iter().map(|sample| pick(sample)).collect());
        let best = own.iter().map(|sample| sample.cpu).min_by(f64::total_cmp);
        table.add_row([
            kind.name().to_string(),
            shown(of(|sample| sample.cpu), 1),
            shown(best, 1),
            shown(ratio(samples, *kind, Kind::Nginx), 2),
            shown(ratio(samples, *kind, Kind::Bare), 2),
            shown(of(|sample| sample.rate), 0),
            shown(of(|sample| sample.p50 / 1000.0), 2),
            shown(of(|sample| sample.p99 / 1000.0), 2),
            shown(of(|sample| sample.wait), 2),
            own.iter().map(|sample| sample.broken).sum::<u64>().to_string(),
        ]);
    }
    table.to_string()
}

pub fn changes(all: &[Changes]) -> String {
    let head =
        ["changes under POST load", "requests", "changes", "broken", "how", "closed idle", "effect ms", "max ms"];
    let mut table = table(&head);
    for one in all {
        let seen = one.effects.iter().flatten().map(|effect| effect.as_secs_f64() * 1000.0).collect::<Vec<_>>();
        let how = one.broken.iter().map(|(how, count)| format!("{count} {how}")).collect::<Vec<_>>();
        table.add_row([
            one.kind.name().to_string(),
            one.requests.to_string(),
            format!("{} of {} seen", seen.len(), one.changes),
            one.broken.values().sum::<u64>().to_string(),
            how.join("; "),
            one.closed_idle.to_string(),
            shown(median(seen.clone()), 1),
            shown(seen.into_iter().max_by(f64::total_cmp), 1),
        ]);
    }
    table.to_string()
}

pub fn memory(all: &[Memory]) -> String {
    let mut table = table(&["memory (PSS)", "at start MiB", "idle clients", "KiB per idle client"]);
    for one in all {
        table.add_row([
            one.kind.name().to_string(),
            format!("{:.1}", one.start_kib as f64 / 1024.0),
            one.clients.to_string(),
            format!("{:.1}", one.grown_kib as f64 / one.clients as f64),
        ]);
    }
    table.to_string()
}

/// One cell of the TLS bench: a row for each proxy, numbers with their digits behind the point.
pub fn tls(title: &str, rows: impl Iterator<Item = (Kind, [(Option<f64>, usize); 4])>) -> String {
    let mut table = table(&[title, "CPU us", "per core and s", "seen per s", "wait"]);
    for (kind, numbers) in rows {
        let numbers = numbers.map(|(number, digits)| shown(number, digits));
        table.add_row([&[kind.name().to_string()], &numbers[..]].concat());
    }
    table.to_string()
}

/// One visit of the bench of connections to endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Upstream {
    pub sample: Sample,
    /// To the endpoint, for each request.
    pub connections: f64,
    /// Share of the handshakes.
    pub resumed: f64,
}

/// One cell of it: a row for each proxy.
pub fn upstream<'a>(title: &str, rows: impl Iterator<Item = (Kind, &'a [Upstream])>) -> String {
    let mut table = table(&[title, "CPU us", "per core and s", "seen per s", "wait", "connections each", "resumed"]);
    for (kind, samples) in rows {
        let of = |pick: fn(&Upstream) -> f64| median(samples.iter().map(pick).collect());
        let cpu = of(|seen| seen.sample.cpu);
        table.add_row([
            kind.name().to_string(),
            shown(cpu, 1),
            shown(cpu.map(|cpu| 1e6 / cpu), 0),
            shown(of(|seen| seen.sample.rate), 0),
            shown(of(|seen| seen.sample.wait), 2),
            shown(of(|seen| seen.connections), 3),
            shown(of(|seen| seen.resumed), 2),
        ]);
    }
    table.to_string()
}

/// What each way of checking costs: milliseconds of CPU a second, and p50 and p99 of requests in milliseconds.
pub fn health(rows: &[(&str, [Option<f64>; 3])]) -> String {
    let mut table = table(&["health checks", "CPU ms/s", "p50 ms", "p99 ms"]);
    for (what, [cpu, p50, p99]) in rows {
        table.add_row([what.to_string(), shown(*cpu, 1), shown(*p50, 2), shown(*p99, 2)]);
    }
    table.to_string()
}

fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".to_string(), |number| format!("{number:.digits$}"))
}

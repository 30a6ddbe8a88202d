//! Memory, descriptors and threads of a process and all below it.

use std::fs;
use std::time::Duration;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    pub rss_kib: u64,
    pub descriptors: u64,
    pub threads: u64,
}

/// The process and its children, and theirs.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", all[at])).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

pub fn read(pid: u32) -> Meter {
    let mut sum = Meter::default();
    for pid in family(pid) {
        // One that has just ended counts nothing.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        sum.rss_kib += number("VmRSS:");
        sum.threads += number("Threads:");
        sum.descriptors += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |all| all.count() as u64);
    }
    sum
}

#[derive(Debug, Default)]
pub struct Meters(Vec<(Duration, Meter)>);

impl Meters {
    pub fn push(&mut self, at: Duration, meter: Meter) {
        self.0.push((at, meter));
    }

    /// Medians of the second and of the last quarter of the run: what it needs, and whether that grows.
    pub fn trend(&self) -> Option<(Meter, Meter)> {
        let quarter = self.0.len() / 4;
        (quarter >= 5).then(|| (median(&self.0[quarter..2 * quarter]), median(&self.0[self.0.len() - quarter..])))
    }
}

fn median(of: &[(Duration, Meter)]) -> Meter {
    let middle = |number: fn(&Meter) -> u64| {
        let mut all: Vec<u64> = of.iter().map(|(_, meter)| number(meter)).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Meter {
        rss_kib: middle(|meter| meter.rss_kib),
        descriptors: middle(|meter| meter.descriptors),
        threads: middle(|meter| meter.threads),
    }
}

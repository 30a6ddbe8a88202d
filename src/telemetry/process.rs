//! What the kernel knows of this process, under the names every Prometheus client uses.
//!
//! From `/proc`; where that is missing the families are left out.

use std::fs;

use super::exposition::{Exposition, Type};

pub(super) fn write(out: &mut Exposition) {
    if let Some(stat) = Stat::read() {
        let help = "Total user and system CPU time spent in seconds.";
        out.single("process_cpu_seconds_total", Type::Counter, help, stat.cpu_seconds);
        let help = "Resident memory size in bytes.";
        out.single("process_resident_memory_bytes", Type::Gauge, help, stat.resident_bytes);
        let help = "Virtual memory size in bytes.";
        out.single("process_virtual_memory_bytes", Type::Gauge, help, stat.virtual_bytes);
        out.single("process_threads", Type::Gauge, "Number of OS threads in the process.", stat.threads);
        if let Some(boot) = boot_seconds() {
            let help = "Start time of the process since unix epoch in seconds.";
            out.single("process_start_time_seconds", Type::Gauge, help, boot + stat.start_seconds_after_boot);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory itself.
        let open = open.count().saturating_sub(1);
        out.single("process_open_fds", Type::Gauge, "Number of open file descriptors.", open as f64);
    }
    if let Some(max) = open_files_max() {
        out.single("process_max_fds", Type::Gauge, "Maximum number of open file descriptors.", max);
    }
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    start_seconds_after_boot: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    /// proc(5), `/proc/pid/stat`.
    fn read() -> Option<Stat> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The name may contain anything, also blanks and parentheses: count from its end, field 2.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        // SAFETY: sysconf reads a constant of the system and has no preconditions.
        let (ticks, page) =
            unsafe { (libc::sysconf(libc::_SC_CLK_TCK) as f64, libc::sysconf(libc::_SC_PAGESIZE) as f64) };
        Some(Stat {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            start_seconds_after_boot: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
        })
    }
}

fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_files_max() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::exposition::strict;
    use super::*;

    #[test]
    fn the_numbers_are_plausible() {
        let mut out = Exposition::default();
        write(&mut out);
        let seen = strict::read(&out.finish());
        assert!(seen["process_resident_memory_bytes"] > 1e6 && seen["process_resident_memory_bytes"] < 1e11);
        assert!(seen["process_open_fds"] >= 3.0 && seen["process_open_fds"] <= seen["process_max_fds"]);
        assert!(seen["process_threads"] >= 2.0, "the test's own thread and the harness");
        let now = super::super::unix_ms() as f64 / 1e3;
        assert!((0.0..3600.0).contains(&(now - seen["process_start_time_seconds"])));
    }
}

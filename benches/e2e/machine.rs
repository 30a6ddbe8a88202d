//! What the operating system knows: cores, CPU time and memory of processes. Linux only.

use std::fs;
use std::io;
use std::mem;

/// The first two cores this process may use: one for the proxy, one for origin and load.
pub fn two_cores() -> Option<(usize, usize)> {
    // SAFETY: the set is plain data, zeroed is empty, and the call writes no more than its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return None;
        }
        set
    };
    // SAFETY: every index is below CPU_SETSIZE.
    let mut allowed = (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) });
    Some((allowed.next()?, allowed.next()?))
}

/// Keeps the calling thread, and the processes it starts, on one core. Async-signal-safe.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: as above; `core` came from `two_cores`.
    let done = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the calling process when the one that started it ends. Async-signal-safe.
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: no memory is involved.
    let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Allows as many open files as possible, also to the processes started from here, and says how many.
pub fn raise_open_files() -> usize {
    // SAFETY: the limit is plain data and lives through both calls. A refusal leaves the limit as it was.
    unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 1024;
        }
        let before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max.min(65_536);
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 { limit.rlim_cur as usize } else { before as usize }
    }
}

pub fn is_root() -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::geteuid() == 0 }
}

/// Whether a child has ended; it is left to be waited for.
pub fn has_ended(child: u32) -> bool {
    // SAFETY: the answer is plain data, zeroed is empty, and the call writes no more than its size.
    unsafe {
        let mut answer: libc::siginfo_t = mem::zeroed();
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, child, &mut answer, how) != 0 || answer.si_pid() != 0
    }
}

/// The scheduler's account of a set of processes, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub running: u64,
    /// Runnable, but somebody else had the core.
    pub waiting: u64,
}

/// Sums over all threads. Processes that are gone count as zero.
pub fn times(processes: &[u32]) -> Times {
    let mut sum = Times::default();
    for process in processes {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in threads.flatten() {
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0));
            sum.running += numbers.next().unwrap_or(0);
            sum.waiting += numbers.next().unwrap_or(0);
        }
    }
    sum
}

/// A process and everything it started, directly or not.
pub fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // "pid (name) state parent …": the name may contain anything, so count from its end.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (process, parent)));
    }
    let mut family = vec![root];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    family
}

/// Memory, with shared pages counted in parts.
pub fn pss_kib(processes: &[u32]) -> u64 {
    let of = |process: &u32| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    processes.iter().filter_map(of).sum()
}

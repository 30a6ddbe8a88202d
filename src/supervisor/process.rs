//! Starting a worker: this program's own command line, with the private channel added.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::binary::Binary;
use super::sys;
use crate::handover::Channel;

/// The hidden argument that makes `run` a worker.
pub const WORKER_ARGUMENT: &str = "--worker-fd";

/// What concerns the supervisor and nobody below it.
const NOT_FOR_WORKERS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Its process id and our end of the channel.
pub fn start(binary: &Binary, arguments: &[OsString]) -> io::Result<(u32, Channel)> {
    let (ours, theirs) = Channel::pair()?;
    let fd = theirs.as_fd().as_raw_fd();
    let mut command = Command::new(binary.program());
    command.arg0("switchback").args(arguments).arg(WORKER_ARGUMENT).arg(fd.to_string());
    command.stdin(Stdio::null());
    for name in NOT_FOR_WORKERS {
        command.env_remove(name);
    }
    // A group of its own: what the terminal sends to ours is passed on once, by us.
    command.process_group(0);
    // SAFETY: both calls are allowed between fork and exec.
    unsafe {
        command.pre_exec(move || {
            sys::unblock_all_signals()?;
            sys::keep_over_exec(fd, true)
        });
    }
    let child = command.spawn()?;
    // Dropping it does not end the process; the supervisor reaps all that end.
    Ok((child.id(), ours))
}

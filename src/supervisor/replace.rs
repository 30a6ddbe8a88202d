//! The supervisor becomes the program of the worker that was ready last: same process, same children, same sockets.
//!
//! What it knows is written to memory that stays open over `exec`. Before that, the new program is asked in a process of
//! its own whether it can read it: a supervisor that cannot go on would take everything with it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::binary::Binary;
use super::machine::{Machine, Worker};
use super::sys;
use super::table::SavedSocket;
use crate::handover::{pack, unpack};

/// The hidden arguments of a supervisor that takes another one's place, and of one that only looks.
pub const RESUME_ARGUMENT: &str = "--resume-fd";
pub const CHECK_ARGUMENT: &str = "--resume-check-fd";

/// Changes when what is saved changes its meaning.
const FORMAT: u32 = 1;
const CHECK: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    format: u32,
    /// How long the supervisor has run, whatever programs it was.
    pub elapsed: Duration,
    pub machine: Machine,
    pub sockets: Vec<SavedSocket>,
    pub workers: Vec<SavedWorker>,
    pub good: SavedBinary,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SavedWorker {
    pub who: Worker,
    pub pid: u32,
    pub fd: Option<RawFd>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SavedBinary {
    pub path: std::path::PathBuf,
    pub fd: Option<RawFd>,
}

impl Saved {
    pub fn new(
        elapsed: Duration,
        machine: Machine,
        sockets: Vec<SavedSocket>,
        workers: Vec<SavedWorker>,
        good: SavedBinary,
    ) -> Saved {
        Saved { format: FORMAT, elapsed, machine, sockets, workers, good }
    }

    /// What was written before `exec`. An error says why it cannot be gone on from there.
    pub fn read(fd: OwnedFd) -> Result<Saved, String> {
        let bytes = unpack(fd).map_err(|error| error.to_string())?;
        let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if saved.format != FORMAT {
            return Err(format!("it is written in format {}, and this program reads {FORMAT}", saved.format));
        }
        Ok(saved)
    }

    fn fds(&self) -> Vec<RawFd> {
        let sockets = self.sockets.iter().map(|socket| socket.fd);
        let workers = self.workers.iter().filter_map(|worker| worker.fd);
        sockets.chain(workers).chain(self.good.fd).collect()
    }
}

/// Returns only if it did not work; then everything is as it was.
pub fn replace(saved: &Saved, binary: &Binary, arguments: &[OsString]) -> String {
    let memory = match serde_json::to_vec(saved).map_err(io::Error::from).and_then(|bytes| pack(&bytes)) {
        Ok(memory) => memory,
        Err(error) => return format!("what it knows cannot be written: {error}"),
    };
    if let Err(why) = check(&memory, binary, arguments) {
        return why;
    }
    let fds: Vec<RawFd> = saved.fds().into_iter().chain([memory.as_raw_fd()]).collect();
    let kept: io::Result<()> = fds.iter().try_for_each(|fd| sys::keep_over_exec(*fd, true));
    let error = match kept {
        Ok(()) => command(binary, arguments, RESUME_ARGUMENT, &memory).exec(),
        Err(error) => error,
    };
    for fd in fds {
        // Nothing else could be done about it; a worker that is started would have one descriptor too many.
        let _ = sys::keep_over_exec(fd, false);
    }
    error.to_string()
}

fn command(binary: &Binary, arguments: &[OsString], how: &str, memory: &OwnedFd) -> Command {
    let mut command = Command::new(binary.program());
    command.arg0("switchback").args(arguments).arg(how).arg(memory.as_raw_fd().to_string());
    // What was passed at the very first start is among the sockets by now.
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    command
}

fn check(memory: &OwnedFd, binary: &Binary, arguments: &[OsString]) -> Result<(), String> {
    let mut command = command(binary, arguments, CHECK_ARGUMENT, memory);
    command.stdin(Stdio::null()).process_group(0);
    let fd = memory.as_fd().as_raw_fd();
    // SAFETY: both calls are allowed between fork and exec.
    unsafe {
        command.pre_exec(move || {
            sys::unblock_all_signals()?;
            sys::keep_over_exec(fd, true)
        });
    }
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let until = Instant::now() + CHECK;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the new program cannot go on from here: {status}")),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("the new program does not say whether it can go on from here".into());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

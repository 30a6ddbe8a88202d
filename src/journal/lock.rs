//! One process per state directory: a lock that the kernel drops with its owner, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the lock inside `state_dir`.
const LOCK: &str = "switchback.lock";

/// Held for as long as this lives. `None` inside: the directory cannot be written, and nobody ever locked it.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] Option<File>);

/// Who has it, as far as it says.
#[derive(Debug)]
pub(super) struct Taken(pub Option<u32>);

impl Lock {
    pub fn take(dir: &Path) -> Result<Lock, Taken> {
        let file = dir.join(LOCK);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file);
        // A read-only directory may hold the lock file of a writable past; without one nobody can be at work here.
        let Ok(mut opened) = opened.or_else(|_| File::open(&file)) else { return Ok(Lock(None)) };
        // SAFETY: the descriptor is open for as long as `opened` lives.
        if unsafe { libc::flock(opened.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() == ErrorKind::WouldBlock {
                let mut owner = String::new();
                // Who it is is a courtesy.
                let _ = opened.read_to_string(&mut owner);
                return Err(Taken(owner.trim().parse().ok()));
            }
            tracing::warn!(%error, file = %file.display(), "the state directory cannot be locked: two processes on it would not be noticed");
            return Ok(Lock(None));
        }
        // On a full disk the lock counts all the same.
        let _ =
            opened.set_len(0).and_then(|()| opened.rewind()).and_then(|()| writeln!(opened, "{}", std::process::id()));
        Ok(Lock(Some(opened)))
    }
}

//! The system calls that std does not have, each with the smallest possible wrapper.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::machine::Exit;

/// Signals that the supervisor reads instead of being interrupted by them.
pub const HEARD: [c_int; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGCHLD];

fn set(signals: &[c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set; `sigaddset` takes an initialised one and a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// From now on [`HEARD`] wait in the descriptor that is returned. Before any thread is started.
pub fn hear_signals() -> io::Result<OwnedFd> {
    let set = set(&HEARD);
    // SAFETY: plain calls with an initialised set.
    unsafe {
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}

/// For a process that was just forked and is about to become another program. Safe to call there.
pub fn unblock_all_signals() -> io::Result<()> {
    let set = set(&[]);
    // SAFETY: allowed between fork and exec.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The next signal that waits.
pub fn next_signal(fd: BorrowedFd<'_>) -> Option<c_int> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is as long as is said; a whole record is read or none.
    let read = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    // SAFETY: filled, if a whole record was read.
    (read == size as isize).then(|| unsafe { info.assume_init() }.ssi_signo as c_int)
}

/// Waits until one of them can be read or is closed, or until the time is over. Says which.
pub fn wait(fds: &[RawFd], at_most: Option<Duration>) -> Vec<bool> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    // Rounded up: woken a moment too early, it would only ask again.
    let millis = at_most.map_or(-1, |time| c_int::try_from(time.as_millis().saturating_add(1)).unwrap_or(c_int::MAX));
    // SAFETY: the array is as long as is said.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
    polled.iter().map(|polled| ready > 0 && polled.revents != 0).collect()
}

/// The next child that has ended, also one that was only left to us.
pub fn reap() -> Option<(u32, Exit)> {
    loop {
        let mut status = 0;
        // SAFETY: writes one integer.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        if libc::WIFEXITED(status) {
            return Some((pid as u32, Exit::Code(libc::WEXITSTATUS(status))));
        }
        if libc::WIFSIGNALED(status) {
            return Some((pid as u32, Exit::Signal(libc::WTERMSIG(status))));
        }
    }
}

/// To a child that was not reaped yet, so that the number is still its own.
pub fn kill(pid: u32, signal: c_int) {
    // SAFETY: a plain call.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// What `ps` and `pkill` call it: a program that is run through a descriptor would be called by its number.
pub fn name_process() {
    // SAFETY: a C string of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"switchback".as_ptr()) };
}

/// Whether it stays open in a program that takes this one's place.
pub fn keep_over_exec(fd: RawFd, keep: bool) -> io::Result<()> {
    // SAFETY: changes a flag of a descriptor, or fails if it is not open. Allowed between fork and exec.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, if keep { 0 } else { libc::FD_CLOEXEC }) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// `fd` must be new and nobody else's, or negative with `errno` set.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    match fd {
        ..0 => Err(io::Error::last_os_error()),
        // SAFETY: by the contract of this function.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

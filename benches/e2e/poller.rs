//! A small edge-triggered epoll: origin and load share one core and must cost little beside the proxy.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        // SAFETY: the descriptor is new and owned by nobody else.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Poller { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    /// Tells once whenever `socket` becomes readable, writable or closed. Closing it ends that.
    pub fn add(&self, socket: &impl AsRawFd, token: usize) -> io::Result<()> {
        let interest = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events: interest, u64: token as u64 };
        // SAFETY: both descriptors are open and `event` lives through the call.
        let done =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Tokens of sockets that something happened to, at most `timeout` (rounded up to 1 ms) from now.
    pub fn wait(&mut self, timeout: Duration, tokens: &mut Vec<usize>) -> io::Result<()> {
        tokens.clear();
        let millis = timeout.as_micros().div_ceil(1000) as i32;
        // SAFETY: the kernel writes at most as many events as the buffer has places for.
        let count = unsafe {
            let room = self.events.len() as i32;
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), room, millis)
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        tokens.extend(self.events[..count as usize].iter().map(|event| event.u64 as usize));
        Ok(())
    }
}

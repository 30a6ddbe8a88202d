//! Sockets that the process was started with, as systemd passes them: `LISTEN_PID`, `LISTEN_FDS`, and the
//! descriptors from 3 on. Which listener one is for follows from its address alone, so that the configuration
//! stays the only place that says who listens where.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use socket2::Socket;

use super::Address;

const FIRST: RawFd = 3;
/// More is a mistake, not a set of listeners.
const MOST: RawFd = 1024;

#[derive(Debug)]
pub struct Inherited {
    pub address: Address,
    pub fd: OwnedFd,
}

/// Takes them over. Call it once, at the start, before any descriptor is opened. An error says what is wrong
/// with what was passed.
pub fn inherited() -> Result<Vec<Inherited>, String> {
    let read = |name| std::env::var(name).ok();
    let Some(count) = meant_for(read("LISTEN_PID").as_deref(), read("LISTEN_FDS").as_deref(), std::process::id())?
    else {
        return Ok(Vec::new());
    };
    let mut taken = Vec::new();
    for fd in FIRST..FIRST + count {
        // SAFETY: `fcntl` with F_GETFD only asks whether the descriptor is open.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(format!("LISTEN_FDS says {count}, but descriptor {fd} is not open"));
        }
        // SAFETY: it is open, and by the protocol it is given to this process, which has opened nothing yet.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        match address_of(fd) {
            Ok(socket) => taken.push(socket),
            Err(error) => tracing::warn!(%error, "a descriptor that was passed is no listening socket: closed"),
        }
    }
    Ok(taken)
}

/// How many there are, or that they are another process's.
fn meant_for(pid: Option<&str>, count: Option<&str>, own: u32) -> Result<Option<RawFd>, String> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(None) };
    match pid.parse::<u32>() {
        Ok(pid) if pid == own => {}
        Ok(_) => return Ok(None),
        Err(_) => return Err(format!("LISTEN_PID: `{pid}` is not a process id")),
    }
    match count.parse::<RawFd>() {
        Ok(count) if (0..=MOST).contains(&count) => Ok(Some(count)),
        Ok(_) | Err(_) => Err(format!("LISTEN_FDS: `{count}` is not a number from 0 to {MOST}")),
    }
}

fn address_of(fd: OwnedFd) -> io::Result<Inherited> {
    let socket = Socket::from(fd);
    if socket.r#type()? != socket2::Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::other("it is not a stream socket that listens"));
    }
    socket.set_cloexec(true)?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?;
    let address = match (bound.as_socket(), bound.as_pathname()) {
        (Some(address), _) => {
            // Accepted sockets inherit it, as they do from a socket that is bound here.
            socket.set_tcp_nodelay(true)?;
            Address::Tcp(address)
        }
        (None, Some(path)) => Address::Unix(path.to_path_buf()),
        (None, None) => return Err(io::Error::other("its address is neither IP nor a path")),
    };
    Ok(Inherited { address, fd: socket.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        for (pid, count, expected) in [
            (None, None, Ok(None)),
            (Some("7"), None, Ok(None)),
            (Some("8"), Some("2"), Ok(None)),
            (Some("7"), Some("2"), Ok(Some(2))),
            (Some("7"), Some("0"), Ok(Some(0))),
        ] {
            assert_eq!(meant_for(pid, count, 7), expected, "{pid:?} {count:?}");
        }
        for (pid, count) in [("x", "1"), ("7", "-1"), ("7", "many"), ("7", "100000")] {
            assert!(meant_for(Some(pid), Some(count), 7).is_err(), "{pid} {count}");
        }
    }

    #[test]
    fn only_a_socket_that_listens_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let taken = address_of(listener.into()).expect("it listens");
        assert_eq!(taken.address, Address::Tcp(address));
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(address_of(one.into()).is_err());
        assert!(address_of(std::fs::File::open("/dev/null").expect("there").into()).is_err());
    }
}

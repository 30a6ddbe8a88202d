//! How many bytes somebody has read from a connection, by the kernel's account.
//!
//! The engine keeps what it has read to itself. A connection can be handed over only if it has read nothing of an
//! answer: the rest of an answer, taken for its beginning, would be read as a head that the endpoint never sent.

use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd};

/// `struct tcp_info` up to the two counts that matter (Linux 4.1); the kernel writes as much of it as there is room.
#[repr(C)]
struct TcpInfo {
    states: [u8; 8],
    numbers: [u32; 24],
    pacing_rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
}

const _: () = assert!(offset_of!(TcpInfo, bytes_received) == 128 && size_of::<TcpInfo>() == 136);

/// What was taken from a connection, and what lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Bytes read since it exists. The end of the other side's stream may count as one.
    pub taken: u64,
    /// Bytes that were received and not read.
    pub waiting: u64,
}

/// `None`: it is no TCP connection, or the kernel does not say.
pub fn taken(connection: &impl AsFd) -> Option<Taken> {
    let fd = connection.as_fd().as_raw_fd();
    // In this order: what comes in between makes `taken` larger, never smaller.
    let waiting = waiting(fd)?;
    let received = received(fd)?;
    Some(Taken { taken: received.saturating_sub(waiting), waiting })
}

fn waiting(fd: i32) -> Option<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one `int`.
    let said = unsafe { libc::ioctl(fd, libc::FIONREAD, &mut count) };
    (said == 0).then_some(u64::try_from(count).ok()?)
}

fn received(fd: i32) -> Option<u64> {
    let mut info = MaybeUninit::<TcpInfo>::zeroed();
    let mut len = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes.
    let said = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len) };
    if said != 0 || (len as usize) < size_of::<TcpInfo>() {
        return None;
    }
    // SAFETY: zeroed, then written by the kernel; every value of its fields is valid.
    let info = unsafe { info.assume_init() };
    // A connection that was made has had its SYN acknowledged: without that, this kernel does not count.
    (info.bytes_acked > 0).then_some(info.bytes_received)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn until(holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < end, "it never came to be");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_lies_there_is_not_taken_and_what_was_read_is() {
        let (mut ours, mut endpoint) = pair();
        assert_eq!(taken(&ours), Some(Taken { taken: 0, waiting: 0 }));
        ours.write_all(b"a request of some length").unwrap();
        assert_eq!(taken(&ours).map(|it| it.taken), Some(0), "only what comes counts");
        endpoint.write_all(b"HTTP/1.1 200").unwrap();
        until(|| taken(&ours) == Some(Taken { taken: 0, waiting: 12 }));
        ours.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(taken(&ours), Some(Taken { taken: 5, waiting: 7 }));
        // Another descriptor of the same connection says the same.
        assert_eq!(taken(&ours.try_clone().unwrap()), Some(Taken { taken: 5, waiting: 7 }));
        ours.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(taken(&ours), Some(Taken { taken: 12, waiting: 0 }));
    }

    #[test]
    fn an_end_never_looks_as_if_less_was_taken() {
        let (mut ours, mut endpoint) = pair();
        endpoint.write_all(b"12345").unwrap();
        endpoint.shutdown(Shutdown::Write).unwrap();
        ours.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(ours.read(&mut [0; 5]).unwrap(), 0);
        let at_the_end = taken(&ours).unwrap();
        assert!(at_the_end.taken >= 5 && at_the_end.waiting == 0, "{at_the_end:?}");
    }

    #[test]
    fn what_is_no_tcp_connection_says_nothing() {
        assert_eq!(taken(&UnixStream::pair().unwrap().0), None);
    }
}

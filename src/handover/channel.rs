//! One end of the pair. Packets keep their borders and arrive whole, in order, or not at all.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Far above any message: each holds a few names and paths.
const LARGEST: usize = 64 * 1024;

#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What one look at the channel gave.
#[derive(Debug)]
pub enum Received<T> {
    Message(T, Option<OwnedFd>),
    /// Not a message that is known here.
    Unknown(String),
    /// Nothing there yet.
    Nothing,
    /// The other end is closed.
    Closed,
}

impl Channel {
    /// Both ends, for this process alone until one is passed on.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(one), Channel(other)))
    }

    /// The end that this process was started with.
    pub fn inherited(fd: RawFd) -> io::Result<Channel> {
        // SAFETY: `fcntl` with F_SETFD changes a flag of a descriptor, or fails if it is not open.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and whoever started this process gave it to it by its number.
        let channel = Channel(unsafe { OwnedFd::from_raw_fd(fd) });
        // Says what it is, so that a number that leads somewhere else is noticed now.
        nix::sys::socket::getsockopt(&channel.0, nix::sys::socket::sockopt::SockType)?;
        Ok(channel)
    }

    /// Never waits for the other side: a full channel is an error.
    pub fn send<T: Serialize>(&self, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        let fds = fd.map(|fd| [fd.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&text)], rights.as_slice(), flags, None) {
                Err(nix::Error::EINTR) => {}
                sent => return sent.map(|_| ()).map_err(io::Error::from),
            }
        }
    }

    /// The next message, waiting for it.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        self.take(MsgFlags::MSG_CMSG_CLOEXEC)
    }

    /// The next message, if there is one.
    pub fn try_receive<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        self.take(MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT)
    }

    fn take<T: DeserializeOwned>(&self, flags: MsgFlags) -> io::Result<Received<T>> {
        let mut bytes = vec![0; LARGEST];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let (length, mut fds, cut) = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let received = match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => return Ok(Received::Nothing),
                Err(nix::Error::ECONNRESET) => return Ok(Received::Closed),
                received => received?,
            };
            let cut = received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
            let mut fds = Vec::new();
            for control in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    // SAFETY: the kernel has just made them for this process, and nobody else knows them.
                    fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            break (received.bytes, fds, cut);
        };
        if length == 0 {
            return Ok(Received::Closed);
        }
        if cut {
            // No room for the descriptor: this process has as many open as it may have.
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(match serde_json::from_slice(&bytes[..length]) {
            Ok(message) => Received::Message(message, fds.pop()),
            Err(error) => Received::Unknown(error.to_string()),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::{FromWorker, ToWorker};
    use super::*;

    #[test]
    fn messages_keep_their_borders_and_bring_their_descriptor() {
        let (one, other) = Channel::pair().expect("a pair");
        assert!(matches!(other.try_receive::<ToWorker>(), Ok(Received::Nothing)));
        let (mut here, there) = std::os::unix::net::UnixStream::pair().expect("a pair");
        one.send(&ToWorker::Freeze, None).expect("room");
        one.send(&ToWorker::Bound { ask: 7 }, Some(there.as_fd())).expect("room");
        drop(there);
        assert!(matches!(other.receive(), Ok(Received::Message(ToWorker::Freeze, None))));
        let Ok(Received::Message(ToWorker::Bound { ask: 7 }, Some(fd))) = other.receive() else { panic!("as sent") };
        here.write_all(b"x").expect("open");
        let mut byte = [0];
        std::os::unix::net::UnixStream::from(fd).read_exact(&mut byte).expect("the same socket");
        drop(one);
        assert!(matches!(other.receive::<ToWorker>(), Ok(Received::Closed)));
    }

    #[test]
    fn an_unknown_word_is_no_end() {
        let (one, other) = Channel::pair().expect("a pair");
        one.send(&serde_json::json!({ "sing": { "loud": true } }), None).expect("room");
        one.send(&FromWorker::Ready, None).expect("room");
        assert!(matches!(other.receive::<FromWorker>(), Ok(Received::Unknown(_))));
        assert!(matches!(other.receive(), Ok(Received::Message(FromWorker::Ready, None))));
    }

    #[test]
    fn a_side_that_does_not_read_stops_nobody() {
        let (one, _other) = Channel::pair().expect("a pair");
        let full = (0..1_000_000).find_map(|nth| one.send(&FromWorker::Pong { nth }, None).err());
        assert_eq!(full.expect("it has a bound").kind(), io::ErrorKind::WouldBlock);
    }
}

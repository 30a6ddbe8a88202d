//! The listening sockets, and which worker uses which. One is open for as long as a worker uses it; that of a
//! worker that died stays until the next one is ready and has said what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::machine::Worker;
use super::sys;
use crate::sockets::{self, Key, SocketFile};

#[derive(Debug)]
pub struct Table {
    held: BTreeMap<Key, Held>,
}

/// One of them, for the program that this process becomes.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedSocket {
    pub key: Key,
    pub fd: RawFd,
    pub inherited: bool,
    pub used_by: BTreeSet<Worker>,
}

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    /// Goes with the socket.
    _file: Option<SocketFile>,
    /// Given at the start; whoever gave it has it open too, so closing it would give the address to nobody.
    inherited: bool,
    used_by: BTreeSet<Worker>,
}

impl Table {
    /// With the sockets the process was started with.
    pub fn new(inherited: Vec<sockets::Inherited>) -> Table {
        let held = inherited.into_iter().map(|given| {
            let key = Key { address: given.address, name: None };
            (key, Held { fd: given.fd, _file: None, inherited: true, used_by: BTreeSet::new() })
        });
        Table { held: held.collect() }
    }

    /// As [`Table::saved`] said it.
    pub fn restored(saved: Vec<SavedSocket>) -> io::Result<Table> {
        let mut held = BTreeMap::new();
        for SavedSocket { key, fd, inherited, used_by } in saved {
            sys::keep_over_exec(fd, false)?;
            // SAFETY: it is open, as was just seen, and was saved by the program that this process was before.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let file = match &key.address {
                sockets::Address::Unix(path) if !inherited => SocketFile::of(path).ok(),
                sockets::Address::Unix(_) | sockets::Address::Tcp(_) => None,
            };
            held.insert(key, Held { fd, _file: file, inherited, used_by });
        }
        Ok(Table { held })
    }

    pub fn saved(&self) -> Vec<SavedSocket> {
        let save = |(key, held): (&Key, &Held)| SavedSocket {
            key: key.clone(),
            fd: held.fd.as_raw_fd(),
            inherited: held.inherited,
            used_by: held.used_by.clone(),
        };
        self.held.iter().map(save).collect()
    }

    /// The socket of an address, bound now if it is not open yet.
    pub fn bind(&mut self, key: &Key, user: Worker) -> io::Result<BorrowedFd<'_>> {
        if !self.held.contains_key(key) {
            let (fd, file) = sockets::bind(&key.address)?;
            let held = Held { fd, _file: file, inherited: false, used_by: BTreeSet::new() };
            self.held.insert(key.clone(), held);
        }
        let held = self.held.get_mut(key).ok_or(io::ErrorKind::NotFound)?;
        held.used_by.insert(user);
        Ok(held.fd.as_fd())
    }

    /// Closes it unless another worker uses it.
    pub fn release(&mut self, key: &Key, user: Worker) {
        if let Some(held) = self.held.get_mut(key) {
            held.used_by.remove(&user);
            if held.used_by.is_empty() && !held.inherited {
                self.held.remove(key);
            }
        }
    }

    /// The worker is gone. What it used stays open for the one that follows.
    pub fn left(&mut self, user: Worker) {
        for held in self.held.values_mut() {
            held.used_by.remove(&user);
        }
    }

    /// Closes what no worker uses. The names of inherited sockets that nobody uses.
    pub fn settle(&mut self) -> Vec<String> {
        self.held.retain(|_, held| held.inherited || !held.used_by.is_empty());
        let unused = self.held.iter().filter(|(_, held)| held.used_by.is_empty());
        unused.map(|(key, _)| key.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a free port")
    }

    #[test]
    fn a_socket_is_open_as_long_as_somebody_uses_it() {
        let address = free();
        let key = Key::tcp(address, "web");
        let mut table = Table::new(Vec::new());
        let first = table.bind(&key, 1).expect("free").as_raw_fd();
        assert_eq!(table.bind(&key, 2).expect("ours").as_raw_fd(), first, "the same one");
        table.release(&key, 1);
        TcpStream::connect(address).expect("2 uses it");
        table.left(2);
        TcpStream::connect(address).expect("kept for whoever follows");
        table.settle();
        TcpStream::connect(address).expect_err("nobody uses it");
    }

    #[test]
    fn what_was_given_is_found_by_its_address_and_never_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let raw = listener.as_raw_fd();
        let given = sockets::Inherited { address: sockets::Address::Tcp(address), fd: listener.into() };
        let mut table = Table::new(vec![given]);
        let key = Key::tcp(address, "web");
        assert_eq!(table.bind(&key, 1).expect("given").as_raw_fd(), raw);
        table.release(&key, 1);
        assert_eq!(table.settle(), [address.to_string()]);
        TcpStream::connect(address).expect("still open");
    }

    #[test]
    fn an_address_of_somebody_else_is_an_error_and_nothing_is_held() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let key = Key::tcp(other.local_addr().expect("bound"), "web");
        let mut table = Table::new(Vec::new());
        assert_eq!(table.bind(&key, 1).map(|_| ()).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(other);
        table.bind(&key, 1).expect("free now");
    }
}

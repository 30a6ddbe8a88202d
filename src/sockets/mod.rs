//! Listening sockets: how they are made, who keeps them, and those that were given to the process at its start.
//!
//! Whoever listens asks a [`Sockets`] for the socket of an address. Without a supervisor that is [`Direct`],
//! which binds. With one, the supervisor binds once and gives the same open socket to every worker, so that
//! what waits in its queue outlives them all.

mod bind;
mod inherited;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

pub use bind::{SocketFile, bind};
pub use inherited::{Inherited, inherited};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which socket is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub address: Address,
    /// Where the kernel chooses the port, the name tells two sockets apart.
    pub name: Option<String>,
}

impl Key {
    pub fn tcp(address: SocketAddr, name: &str) -> Key {
        Key { address: Address::Tcp(address), name: (address.port() == 0).then(|| name.to_string()) }
    }

    pub fn unix(path: PathBuf) -> Key {
        Key { address: Address::Unix(path), name: None }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Where listening sockets come from.
pub trait Sockets: Send + Sync + fmt::Debug {
    /// A descriptor of the listening socket, non-blocking.
    fn bind(&self, key: &Key) -> io::Result<OwnedFd>;
    /// It is not needed any more; connections that come from now on are nobody's.
    fn release(&self, key: &Key);
}

/// A socket that is in use. Dropping it says that it is not any more.
#[derive(Debug)]
pub struct Claim {
    sockets: Arc<dyn Sockets>,
    key: Key,
}

impl Claim {
    pub fn take(sockets: &Arc<dyn Sockets>, key: Key) -> io::Result<(OwnedFd, Claim)> {
        let fd = sockets.bind(&key)?;
        Ok((fd, Claim { sockets: sockets.clone(), key }))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.sockets.release(&self.key);
    }
}

/// Binds in this process, and uses first what the process was given at its start.
#[derive(Debug, Default)]
pub struct Direct {
    inherited: Vec<Inherited>,
    /// Files of Unix sockets that are in use.
    files: Mutex<Vec<(Key, SocketFile)>>,
}

impl Direct {
    pub fn new() -> Direct {
        Direct::default()
    }

    /// With what systemd passed (`LISTEN_FDS`).
    pub fn with_inherited() -> Direct {
        let Ok(inherited) =
            inherited().inspect_err(|why| tracing::warn!(why, "sockets were passed but cannot be used"))
        else {
            return Direct::default();
        };
        Direct { inherited, files: Mutex::default() }
    }
}

impl Sockets for Direct {
    fn bind(&self, key: &Key) -> io::Result<OwnedFd> {
        if let Some(given) = self.inherited.iter().find(|given| given.address == key.address) {
            tracing::info!(address = %key.address, "listening on the socket that was passed");
            return given.fd.try_clone();
        }
        let (fd, file) = bind(&key.address)?;
        if let Some(file) = file {
            self.files.lock().expect("no holder panics").push((key.clone(), file));
        }
        Ok(fd)
    }

    fn release(&self, key: &Key) {
        let mut files = self.files.lock().expect("no holder panics");
        // The oldest: its successor may have been bound in its place.
        if let Some(at) = files.iter().position(|(of, _)| of == key) {
            drop(files.remove(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_counts_only_where_the_kernel_chooses_the_port() {
        let key = |address: &str, name| Key::tcp(address.parse().expect("literal"), name);
        assert_eq!(key("127.0.0.1:80", "a"), key("127.0.0.1:80", "b"));
        assert_ne!(key("127.0.0.1:0", "a"), key("127.0.0.1:0", "b"));
        assert_eq!(key("127.0.0.1:0", "a").to_string(), "127.0.0.1:0 (a)");
    }

    #[test]
    fn a_claim_that_ends_takes_the_file_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let sockets: Arc<dyn Sockets> = Arc::new(Direct::new());
        let (fd, claim) = Claim::take(&sockets, Key::unix(path.clone())).expect("free");
        std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        drop((fd, claim));
        assert!(!path.exists());
    }
}

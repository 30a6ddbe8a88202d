//! Listens on the API's address: TCP, or a Unix socket that only its owner may open.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};

use crate::config::model::AdminBind;
use crate::sockets::{Address, Claim, Key, Sockets};

#[derive(Debug)]
pub struct Listening {
    pub socket: Socket,
    address: String,
    /// Given up, and a Unix socket's file removed, when this ends.
    _claim: Claim,
}

#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener),
}

impl Listening {
    /// As `--admin` takes it.
    pub fn address(&self) -> String {
        self.address.clone()
    }
}

/// Must be called inside a tokio runtime. The message says what to do.
pub fn listen(sockets: &Arc<dyn Sockets>, wanted: &AdminBind) -> Result<Listening, String> {
    let key = match wanted {
        AdminBind::Tcp(address) => Key::tcp(*address, "admin"),
        AdminBind::Unix(path) => Key::unix(path.clone()),
    };
    let (fd, claim) = Claim::take(sockets, key.clone()).map_err(|error| explain(&key.address, &error))?;
    let (socket, address) = open(wanted, fd).map_err(|error| explain(&key.address, &error))?;
    Ok(Listening { socket, address, _claim: claim })
}

fn open(wanted: &AdminBind, fd: OwnedFd) -> io::Result<(Socket, String)> {
    match wanted {
        AdminBind::Tcp(_) => {
            let listener = TcpListener::from_std(fd.into())?;
            let bound = listener.local_addr()?;
            Ok((Socket::Tcp(listener, bound), format!("http://{bound}")))
        }
        AdminBind::Unix(path) => {
            let listener = UnixListener::from_std(fd.into())?;
            Ok((Socket::Unix(listener), format!("unix:{}", path.display())))
        }
    }
}

fn explain(address: &Address, error: &io::Error) -> String {
    let hint = match (address, error.kind()) {
        (Address::Tcp(_), io::ErrorKind::AddrInUse) => {
            "; another process (or an earlier address of this one) has it: choose another `admin.bind`"
        }
        (Address::Tcp(_), io::ErrorKind::AddrNotAvailable) => "; no interface of this machine has that address",
        (Address::Tcp(_), io::ErrorKind::PermissionDenied) => "; ports below 1024 need a privilege",
        (Address::Tcp(_) | Address::Unix(_), _) => "",
    };
    format!("admin: cannot listen on {address}: {error}{hint}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::sockets::Direct;

    fn bind(wanted: &AdminBind) -> Result<Listening, String> {
        let sockets: Arc<dyn Sockets> = Arc::new(Direct::new());
        listen(&sockets, wanted)
    }

    fn unix(path: &Path) -> Result<Listening, String> {
        bind(&AdminBind::Unix(path.to_path_buf()))
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_leaves_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listening = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        tokio::net::UnixStream::connect(&path).await.unwrap();
        assert_eq!(listening.address(), format!("unix:{}", path.display()));
        drop(listening);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = unix(&path).expect("nobody answers on the old one");
        assert!(unix(&path).unwrap_err().contains("another process answers"));
        tokio::net::UnixStream::connect(&path).await.expect("the refused bind left the first alone");

        // A socket that took the place of another is not removed by the end of the other.
        fs::remove_file(&path).unwrap();
        let second = unix(&path).unwrap();
        drop(first);
        tokio::net::UnixStream::connect(&path).await.unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn no_file_is_ever_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path).unwrap_err().contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let nowhere = dir.path().join("missing/admin.sock");
        assert!(unix(&nowhere).is_err());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind(&AdminBind::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Socket::Tcp(_, address) = first.socket else { panic!("asked for TCP") };
        let error = bind(&AdminBind::Tcp(address)).unwrap_err();
        assert!(error.contains(&address.to_string()) && error.contains("another process"), "{error}");
    }
}

//! Binds the API's address: TCP, or a Unix socket that only its owner may open.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::model::AdminBind;

#[derive(Debug)]
pub enum Listening {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listening {
    /// As `--admin` takes it.
    pub fn address(&self) -> String {
        match self {
            Listening::Tcp(_, address) => format!("http://{address}"),
            Listening::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

/// The file of a Unix socket. Dropping it removes the file, unless another socket has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Must be called inside a tokio runtime. The message says what to do.
pub fn bind(wanted: &AdminBind) -> Result<Listening, String> {
    match wanted {
        AdminBind::Tcp(address) => bind_tcp(*address).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "; another process (or an earlier address of this one) has it: choose another `admin.bind`"
                }
                io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
                io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
                _ => "",
            };
            format!("admin: cannot listen on {address}: {error}{hint}")
        }),
        AdminBind::Unix(path) => {
            bind_unix(path).map_err(|error| format!("admin: cannot listen on unix:{}: {error}", path.display()))
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listening> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    let listener = TcpListener::from_std(socket.into())?;
    let bound = listener.local_addr()?;
    Ok(Listening::Tcp(listener, bound))
}

/// Bound under another name, closed to others, then renamed: there is no moment at which somebody else
/// could connect, and a stale file is replaced in one step.
fn bind_unix(path: &Path) -> io::Result<Listening> {
    make_room(path)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    make_room(&aside)?;
    let _ = fs::remove_file(&aside);
    let listener = UnixListener::bind(&aside)?;
    let placed = fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))
        .and_then(|()| identity(&aside))
        .and_then(|identity| fs::rename(&aside, path).map(|()| identity));
    match placed {
        Ok(identity) => Ok(Listening::Unix(listener, SocketFile { path: path.to_path_buf(), identity })),
        Err(error) => {
            let _ = fs::remove_file(&aside);
            Err(error)
        }
    }
}

/// Refuses to replace anything but a socket that nobody answers on.
fn make_room(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name, and it is not a socket",
        ));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue must not keep us waiting; it also means that somebody is there.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process answers there: is switchback running already? stop it, or choose another `admin.bind`",
        )),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let Listening::Tcp(_first, address) = bind(&AdminBind::Tcp("127.0.0.1:0".parse().unwrap())).unwrap() else {
            panic!("asked for TCP");
        };
        let error = bind(&AdminBind::Tcp(address)).unwrap_err();
        assert!(error.contains(&address.to_string()) && error.contains("another process"), "{error}");
    }
}

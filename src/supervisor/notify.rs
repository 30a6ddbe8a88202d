//! What systemd is told over `NOTIFY_SOCKET`. Nobody waits for it: a receiver that does not read loses the news.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::machine::Notice;

#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often a sign of life is wanted, if it is.
    pub watchdog: Option<Duration>,
    said: bool,
}

impl Notify {
    pub fn from_environment() -> Notify {
        let watchdog = watchdog(
            std::env::var("WATCHDOG_PID").ok().as_deref(),
            std::env::var("WATCHDOG_USEC").ok().as_deref(),
            std::process::id(),
        );
        let to = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            let opened = open(name.as_bytes());
            if let Err(error) = &opened {
                tracing::warn!(%error, socket = ?name, "NOTIFY_SOCKET cannot be used: nobody is told when we are ready");
            }
            opened.ok()
        });
        Notify { to, watchdog, said: false }
    }

    pub fn tell(&mut self, notice: &Notice) {
        let text = match notice {
            Notice::Ready => format!("READY=1\nMAINPID={}\n", std::process::id()),
            Notice::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_usec()),
            Notice::Stopping => "STOPPING=1\n".to_string(),
            Notice::Status(text) => format!("STATUS={}\n", text.replace('\n', " ")),
        };
        self.send(&text);
    }

    pub fn alive(&mut self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&mut self, text: &str) {
        let Some((socket, to)) = &self.to else { return };
        match socket.send_to_addr(text.as_bytes(), to) {
            Ok(_) => self.said = false,
            // Once, not with every sign of life.
            Err(error) if !self.said => {
                self.said = true;
                tracing::warn!(%error, "NOTIFY_SOCKET does not answer; serving goes on");
            }
            Err(_) => {}
        }
    }
}

fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// `WATCHDOG_USEC`, if it is meant for this process.
fn watchdog(pid: Option<&str>, usec: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec))
}

fn monotonic_usec() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let micros = Duration::from_micros;
        for (pid, usec, expected) in [
            (None, None, None),
            (None, Some("500000"), Some(micros(500_000))),
            (Some("7"), Some("500000"), Some(micros(500_000))),
            (Some("8"), Some("500000"), None),
            (Some("x"), Some("500000"), None),
            (None, Some("0"), None),
            (None, Some("soon"), None),
        ] {
            assert_eq!(watchdog(pid, usec, 7), expected, "{pid:?} {usec:?}");
        }
    }

    #[test]
    fn a_receiver_that_does_not_read_stops_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let receiver = UnixDatagram::bind(&path).expect("free");
        let to = open(path.as_os_str().as_bytes()).expect("a path");
        let mut notify = Notify { to: Some(to), watchdog: None, said: false };
        notify.tell(&Notice::Status("two\nlines".into()));
        let mut bytes = [0; 64];
        let length = receiver.recv(&mut bytes).expect("sent");
        assert_eq!(&bytes[..length], b"STATUS=two lines\n");
        (0..10_000).for_each(|_| notify.alive());
        assert!(notify.said);
        drop(receiver);
        notify.tell(&Notice::Stopping);
        assert!(open(b"relative").is_err());
    }
}

//! What systemd is told over `NOTIFY_SOCKET`. Nobody waits for it: news that a busy receiver has no room for is told
//! later, in order, and signs of life are not kept.

use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::machine::Notice;

/// How soon it is tried again to tell what there was no room for.
const AGAIN: Duration = Duration::from_millis(50);
/// For so long a receiver counts as busy; then as one that does not read.
const BUSY: Duration = Duration::from_secs(5);
/// So much is kept for a receiver that does not read; the oldest goes first.
const KEPT: usize = 16;

#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often a sign of life is wanted, if it is.
    pub watchdog: Option<Duration>,
    said: bool,
    untold: VecDeque<String>,
    /// Since when something is untold.
    behind_since: Option<Instant>,
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
        Notify::new(to, watchdog)
    }

    fn new(to: Option<(UnixDatagram, SocketAddr)>, watchdog: Option<Duration>) -> Notify {
        Notify { to, watchdog, said: false, untold: VecDeque::new(), behind_since: None }
    }

    pub fn tell(&mut self, notice: &Notice) {
        let text = match notice {
            Notice::Ready => format!("READY=1\nMAINPID={}\n", std::process::id()),
            Notice::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_usec()),
            Notice::Stopping => "STOPPING=1\n".to_string(),
            Notice::Status(text) => format!("STATUS={}\n", text.replace('\n', " ")),
        };
        if self.to.is_some() {
            self.untold.push_back(text);
            if self.untold.len() > KEPT {
                self.untold.pop_front();
            }
            self.catch_up();
        }
    }

    pub fn alive(&mut self) {
        self.catch_up();
        if self.untold.is_empty() {
            self.send("WATCHDOG=1\n");
        }
    }

    /// Tells what there was no room for, as far as there is now.
    pub fn catch_up(&mut self) {
        while let Some(text) = self.untold.pop_front() {
            if self.send(&text) {
                continue;
            }
            self.untold.push_front(text);
            self.behind_since.get_or_insert_with(Instant::now);
            return;
        }
        self.behind_since = None;
    }

    /// When to [`Notify::catch_up`].
    pub fn again_in(&self) -> Option<Duration> {
        self.behind_since.map(|_| AGAIN)
    }

    /// Something is untold, and whoever is to hear it may only be busy.
    pub fn is_behind(&self) -> bool {
        self.behind_since.is_some_and(|since| since.elapsed() < BUSY)
    }

    /// `false`: there is no room for it now. What nobody can be told is as good as told.
    fn send(&mut self, text: &str) -> bool {
        let Some((socket, to)) = &self.to else { return true };
        let Err(error) = socket.send_to_addr(text.as_bytes(), to) else {
            self.said = false;
            return true;
        };
        // Once, not with every sign of life.
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(%error, "NOTIFY_SOCKET does not answer; serving goes on");
        }
        error.kind() != io::ErrorKind::WouldBlock
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
        let mut notify = Notify::new(Some(to), None);
        notify.tell(&Notice::Status("two\nlines".into()));
        let mut bytes = [0; 64];
        let length = receiver.recv(&mut bytes).expect("sent");
        assert_eq!(&bytes[..length], b"STATUS=two lines\n");
        (0..10_000).for_each(|_| notify.alive());
        assert!(notify.said);
        // News waits for its turn, signs of life do not.
        (0..100).for_each(|nth| notify.tell(&Notice::Status(format!("{nth}"))));
        notify.tell(&Notice::Ready);
        assert!(notify.is_behind() && notify.again_in().is_some());
        receiver.set_nonblocking(true).expect("a socket");
        let mut heard = String::new();
        while let Ok(length) = receiver.recv(&mut bytes) {
            heard = String::from_utf8_lossy(&bytes[..length]).into_owned();
            notify.catch_up();
        }
        assert!(heard.starts_with("READY=1"), "{heard}");
        assert!(!notify.is_behind() && notify.again_in().is_none());
        (0..10_000).for_each(|_| notify.alive());
        notify.tell(&Notice::Ready);
        drop(receiver);
        notify.tell(&Notice::Stopping);
        assert!(!notify.is_behind(), "nobody is there any more");
        assert!(open(b"relative").is_err());
    }
}

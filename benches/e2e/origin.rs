//! The endpoint behind every proxy: keep-alive, fixed bodies, two addresses that say which they are; or as many as
//! are wanted.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::machine;
use crate::poller::Poller;

/// Says which of the two addresses answered: `0` or `1`.
pub const HEADER: &str = "x-origin";

/// Starts the origin on `core` at so many addresses, which say `0` and `1` in turns; it serves until the program ends.
pub fn start(core: usize, count: usize) -> io::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
    // Longer than what the proxies open at once, so that a full queue is never the origin's.
    for listener in &listeners {
        // SAFETY: the socket is open, and listens already.
        unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    }
    thread::spawn(move || {
        if let Err(problem) = machine::pin(core).and_then(|()| serve(listeners)) {
            eprintln!("the origin ended: {problem}");
        }
    });
    Ok(addresses)
}

fn serve(listeners: Vec<TcpListener>) -> io::Result<()> {
    let mut poller = Poller::new()?;
    let answers = [Answers::new(0), Answers::new(1)];
    // By file descriptor, which is also the token.
    let mut open: Vec<Option<Connection>> = Vec::new();
    let mut tokens = Vec::new();
    let mut scratch = vec![0; 64 * 1024];
    for listener in &listeners {
        poller.add(listener, listener.as_raw_fd() as usize)?;
    }
    let nth: HashMap<usize, usize> =
        listeners.iter().enumerate().map(|(nth, listener)| (listener.as_raw_fd() as usize, nth)).collect();
    loop {
        poller.wait(Duration::from_secs(3600), &mut tokens)?;
        for token in &tokens {
            if let Some(nth) = nth.get(token) {
                let which = nth % 2;
                while let Ok((socket, _)) = listeners[*nth].accept() {
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    let at = socket.as_raw_fd() as usize;
                    poller.add(&socket, at)?;
                    if open.len() <= at {
                        open.resize_with(at + 1, || None);
                    }
                    open[at] = Some(Connection { socket, which, head: Vec::new(), body: 0, sending: None });
                }
            } else if let Some(slot) = open.get_mut(*token)
                && let Some(connection) = slot
                && connection.proceed(&answers[connection.which], &mut scratch).is_err()
            {
                *slot = None;
            }
        }
    }
}

struct Answers {
    small: Arc<[u8]>,
    large: Arc<[u8]>,
    received: Arc<[u8]>,
}

impl Answers {
    fn new(which: usize) -> Answers {
        let answer = |length: usize| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{HEADER}: {which}\r\n\r\n");
            [head.as_bytes(), &vec![b'x'; length]].concat().into()
        };
        Answers { small: answer(1024), large: answer(100 * 1024), received: answer(2) }
    }
}

struct Connection {
    socket: TcpStream,
    which: usize,
    /// Bytes of a request head that is not complete yet.
    head: Vec<u8>,
    /// Bytes of a request body still to come.
    body: usize,
    /// An answer and how much of it was sent.
    sending: Option<(Arc<[u8]>, usize)>,
}

impl Connection {
    /// Goes on until the socket has no more to give or take. An error is the end of the connection.
    fn proceed(&mut self, answers: &Answers, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            if !self.send()? {
                return Ok(());
            }
            let count = match self.socket.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.take(&scratch[..count], answers)?;
            if count < scratch.len() {
                // A short read emptied the socket, and more will be told.
                return self.send().map(|_| ());
            }
        }
    }

    fn take(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<()> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        if self.body > 0 {
            // The proxies do not pipeline, so nothing follows a body.
            self.body = self.body.checked_sub(bytes.len()).ok_or_else(bad)?;
            if self.body == 0 {
                self.sending = Some((answers.received.clone(), 0));
            }
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(&self.head).map_err(|_| bad())? else { return Ok(()) };
        let mut body = 0;
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                body = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(bad());
            }
        }
        let answer = match request.path {
            _ if body > 0 => None,
            Some("/large") => Some(&answers.large),
            _ => Some(&answers.small),
        };
        self.sending = answer.map(|answer| (answer.clone(), 0));
        let rest = self.head.split_off(length);
        self.head.clear();
        self.body = body;
        if rest.is_empty() { Ok(()) } else { self.take(&rest, answers) }
    }

    /// `false`: the socket takes no more for now.
    fn send(&mut self) -> io::Result<bool> {
        while let Some((answer, sent)) = &mut self.sending {
            match self.socket.write(&answer[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if *sent == answer.len() {
                self.sending = None;
            }
        }
        Ok(true)
    }
}

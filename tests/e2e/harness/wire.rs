//! HTTP/1.1 as bytes, read by hand: the tests must see what is on the wire, not what a library makes of it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

pub type Headers = Vec<(String, String)>;

/// First value of a field, by lower-case name.
pub fn field<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

pub fn fields<'a>(headers: &'a Headers, name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// Reads from a connection and keeps what came too early. `seen` counts every byte ever read.
pub struct Reader<R> {
    inner: R,
    buffer: Vec<u8>,
    pub seen: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, buffer: Vec::new(), seen: 0 }
    }

    pub fn into_parts(self) -> (R, Vec<u8>) {
        (self.inner, self.buffer)
    }

    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads more; 0 is the end.
    pub async fn more(&mut self) -> io::Result<usize> {
        let before = self.buffer.len();
        self.buffer.reserve(64 * 1024);
        let read = self.inner.read_buf(&mut self.buffer).await?;
        debug_assert_eq!(self.buffer.len(), before + read);
        self.seen += read as u64;
        Ok(read)
    }

    /// Takes at most so much, and forgets it.
    pub async fn sip(&mut self, most: usize) -> io::Result<usize> {
        self.inner.read(&mut vec![0; most]).await
    }

    /// Up to and with the empty line; `None` at a clean end before the first byte.
    pub async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.buffer[from..], b"\r\n\r\n") {
                return Ok(Some(self.buffer.drain(..from + at + 4).collect()));
            }
            from = self.buffer.len().saturating_sub(3);
            if self.more().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    pub async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// At least one byte of the next `most`, or empty at the end.
    pub async fn some(&mut self, most: u64) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() && self.more().await? == 0 {
            return Ok(Vec::new());
        }
        let take = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.drain(..take).collect())
    }

    /// One chunk of a chunked body; `None` at the terminating chunk, whose trailers are read too.
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line().await?;
        let digits = line.split(';').next().unwrap_or("").trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
        if size == 0 {
            while !self.line().await?.is_empty() {}
            return Ok(None);
        }
        let mut data = Vec::new();
        while (data.len() as u64) < size {
            let piece = self.some(size - data.len() as u64).await?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            data.extend(piece);
        }
        match self.line().await?.as_str() {
            "" => Ok(Some(data)),
            other => Err(invalid(format!("after a chunk: {other:?}"))),
        }
    }

    /// Everything until the peer closes; an abortive close ends it too.
    pub async fn rest(&mut self) -> Vec<u8> {
        while matches!(self.more().await, Ok(read) if read > 0) {}
        std::mem::take(&mut self.buffer)
    }
}

pub fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Start line and fields of a head, leniently.
pub fn split_head(head: &[u8]) -> (String, Headers) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or("").to_string();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    (first, headers)
}

//! Where the body of one request ends. RFC 9112 section 6.
//!
//! The engine is handed exactly the bytes of one request: what a client sends beyond stays in our buffer, and a
//! body whose framing has two readings is stopped before its last chunk can reach an endpoint.

use super::chunked::{Chunked, Step};
use super::head::RequestBody;

pub use super::chunked::BadChunk;

/// Follows a request body from its first byte to its last.
#[derive(Debug, Clone, Copy)]
pub struct BodyTracker {
    framing: Framing,
    data: u64,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length { left: u64 },
    Chunked(Chunked),
}

impl BodyTracker {
    pub fn new(body: RequestBody) -> BodyTracker {
        let framing = match body {
            RequestBody::None => Framing::Length { left: 0 },
            RequestBody::Length(left) => Framing::Length { left },
            RequestBody::Chunked => Framing::Chunked(Chunked::default()),
        };
        BodyTracker { framing, data: 0 }
    }

    /// How many of these bytes, from the front, belong to this request: all of them, or those up to its end.
    /// They count as passed on. After an error the connection must be closed without passing on any of them.
    pub fn admit(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match &mut self.framing {
            Framing::Length { left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                self.data += taken as u64;
                Ok(taken)
            }
            Framing::Chunked(chunked) => {
                let mut taken = 0;
                while taken < bytes.len() && !chunked.is_done() {
                    let step = chunked.step(&bytes[taken..])?;
                    taken += step.len();
                    match step {
                        Step::Data(len) => self.data += len as u64,
                        Step::Framing(_) => {}
                    }
                }
                Ok(taken)
            }
        }
    }

    /// The request is complete: the next byte is not part of it.
    pub fn is_done(&self) -> bool {
        match &self.framing {
            Framing::Length { left } => *left == 0,
            Framing::Chunked(chunked) => chunked.is_done(),
        }
    }

    /// Bytes of payload admitted so far, without chunk framing.
    pub fn data_bytes(&self) -> u64 {
        self.data
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;

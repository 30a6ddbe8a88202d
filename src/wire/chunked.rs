//! The chunked transfer coding, one step at a time and at any split. RFC 9112 section 7.1.
//!
//! Strict where others are lenient: a size has at least one digit, lines end in CR LF, nothing but an extension
//! may follow a size, and a trailer section is made of fields that may stand in one.

use super::token::is_tchar;
use super::trailers::is_forbidden;

const SIZE_DIGITS_MAX: u32 = 16;
/// Bytes of all chunk extensions of one body together.
const EXTENSIONS_MAX: u32 = 4 * 1024;
const TRAILER_BYTES_MAX: u32 = 16 * 1024;
const TRAILER_FIELDS_MAX: u32 = 64;
/// Enough for the longest name of a field that may not be a trailer.
const NAME_KEPT: usize = 18;

/// Bytes that are not a chunked body. The connection they came on cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadChunk {
    pub why: &'static str,
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy)]
pub struct Chunked {
    at: At,
    /// Of the chunk being read: its size while that is read, then the bytes still to come.
    left: u64,
    digits: u32,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailer_fields: u32,
    /// The beginning of the trailer name being read, in lower case.
    name: [u8; NAME_KEPT],
    name_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    LastFeed,
    Done,
}

/// What a step took from the front of the bytes it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of sizes, line endings and trailers.
    Framing(usize),
    /// So many bytes of payload.
    Data(usize),
}

impl Step {
    pub fn len(self) -> usize {
        match self {
            Step::Framing(len) | Step::Data(len) => len,
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl Default for Chunked {
    fn default() -> Chunked {
        Chunked {
            at: At::Size,
            left: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            name: [0; NAME_KEPT],
            name_len: 0,
        }
    }
}

impl Chunked {
    /// The last chunk and its trailers have been read.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// A chunk has ended and the next has not begun.
    pub fn is_between_chunks(&self) -> bool {
        self.at == At::Size && self.digits == 0
    }

    /// Takes a run of payload, or framing up to where payload or a new chunk begins or the body ends. Takes
    /// nothing only if there are no bytes or the body is done.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BadChunk> {
        if self.at == At::Data {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            if self.left == 0 {
                self.at = At::DataReturn;
            }
            return Ok(Step::Data(taken));
        }
        let mut taken = 0;
        for byte in bytes {
            if self.at == At::Done {
                break;
            }
            self.framing(*byte)?;
            taken += 1;
            if self.at == At::Data || self.is_between_chunks() {
                break;
            }
        }
        Ok(Step::Framing(taken))
    }

    fn framing(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.at = match self.at {
            At::Size => return self.size(byte),
            At::Extension => match byte {
                b'\r' => At::SizeFeed,
                byte if is_text(byte) => return self.extension(),
                _ => return bad("a chunk extension has a control character"),
            },
            At::SizeFeed => match (byte, self.left) {
                (b'\n', 0) => At::TrailerStart,
                (b'\n', _) => At::Data,
                _ => return bad("a chunk size does not end in CR LF"),
            },
            At::DataReturn if byte == b'\r' => At::DataFeed,
            At::DataFeed if byte == b'\n' => {
                self.digits = 0;
                At::Size
            }
            At::DataReturn | At::DataFeed => return bad("a chunk is longer than its size says"),
            At::TrailerStart | At::TrailerName | At::TrailerValue | At::TrailerFeed => return self.trailer(byte),
            At::LastFeed if byte == b'\n' => At::Done,
            At::LastFeed => return bad("the body does not end in CR LF"),
            At::Data | At::Done => unreachable!("no framing is read here"),
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<(), BadChunk> {
        match (char::from(byte).to_digit(16), byte) {
            (Some(digit), _) => {
                self.left = if self.digits == 0 { 0 } else { self.left };
                self.digits += 1;
                if self.digits > SIZE_DIGITS_MAX || self.left > (i64::MAX as u64) >> 4 {
                    return bad("a chunk size is too large");
                }
                self.left = self.left << 4 | u64::from(digit);
            }
            (None, _) if self.digits == 0 => return bad("a chunk size has no digit"),
            (None, b';') => return self.extension(),
            (None, b'\r') => self.at = At::SizeFeed,
            (None, _) => return bad("a chunk size is not a hexadecimal number"),
        }
        Ok(())
    }

    fn extension(&mut self) -> Result<(), BadChunk> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSIONS_MAX {
            return bad("chunk extensions are too long");
        }
        self.at = At::Extension;
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return bad("the trailers are too long");
        }
        self.at = match (self.at, byte) {
            (At::TrailerStart, b'\r') => At::LastFeed,
            (At::TrailerStart, byte) if is_tchar(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > TRAILER_FIELDS_MAX {
                    return bad("too many trailers");
                }
                self.name_len = 0;
                self.keep(byte);
                At::TrailerName
            }
            (At::TrailerName, b':') => {
                if self.name_len <= NAME_KEPT && is_forbidden(&self.name[..self.name_len]) {
                    return bad("a trailer that may not be one");
                }
                At::TrailerValue
            }
            (At::TrailerName, byte) if is_tchar(byte) => {
                self.keep(byte);
                At::TrailerName
            }
            (At::TrailerValue, b'\r') => At::TrailerFeed,
            (At::TrailerValue, byte) if is_text(byte) => At::TrailerValue,
            (At::TrailerFeed, b'\n') => At::TrailerStart,
            _ => return bad("a malformed trailer"),
        };
        Ok(())
    }

    /// A name longer than the room for it is none of the forbidden ones; its length alone tells.
    fn keep(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(self.name_len) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_len += 1;
    }
}

/// Characters of field values and, for us, chunk extensions: no controls but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn bad<T>(why: &'static str) -> Result<T, BadChunk> {
    Err(BadChunk { why })
}

//! Trailers of HTTP/2 requests with a pseudo-field in them. RFC 9113 section 8.1: a message with such is malformed.
//!
//! The HTTP/2 library refuses fields of a connection in trailers, and drops pseudo-fields from them without a word. So
//! the frames are looked at as they pass by. Blocks of fields of all streams are read, for they share one table.

use super::frames::{Frame, Kind};
use super::hpack::{Fields, Malformed};

/// Fields that would say something else about the message than its head did: where it goes, and where it ends.
const NOT_IN_TRAILERS: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// A field with this name, in lower case, may not stand in trailers.
pub fn is_forbidden(name: &[u8]) -> bool {
    NOT_IN_TRAILERS.iter().any(|forbidden| forbidden.as_bytes() == name)
}

/// Follows what a client sends.
#[derive(Debug, Clone, Default)]
pub struct Trailers {
    fields: Fields,
    is_broken: bool,
    /// The highest stream that was opened: fields on one that is not newer are trailers.
    newest: u32,
    stream: u32,
    is_trailers: bool,
    was_told: bool,
    /// Bytes of the present frame that are fields, after those that are not.
    before: u32,
    left: u32,
    is_padded: bool,
}

impl Trailers {
    /// A frame begins.
    pub fn begins(&mut self, frame: &Frame) {
        self.left = 0;
        match frame.kind {
            Kind::Headers => {
                (self.stream, self.was_told) = (frame.stream, false);
                self.is_trailers = frame.stream <= self.newest;
                self.newest = self.newest.max(frame.stream);
                self.is_padded = frame.is_padded;
                self.before = if frame.has_priority { 5 } else { 0 };
                self.left = frame.len;
            }
            Kind::Continuation => {
                (self.is_padded, self.before) = (false, 0);
                self.left = frame.len;
            }
            Kind::Data
            | Kind::Priority
            | Kind::Reset
            | Kind::Settings
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Other => {}
        }
    }

    /// Bytes inside the present frame. The stream whose trailers turn out to be malformed, once.
    pub fn read(&mut self, mut payload: &[u8]) -> Option<u32> {
        if self.left == 0 || self.is_broken {
            return None;
        }
        if self.is_padded
            && let Some((padding, rest)) = payload.split_first()
        {
            self.is_padded = false;
            payload = rest;
            // Too much of it ends the connection in the library.
            self.left = self.left.saturating_sub(1 + u32::from(*padding));
        }
        let skipped = payload.len().min(self.before as usize);
        self.before -= skipped as u32;
        self.left = self.left.saturating_sub(skipped as u32);
        payload = &payload[skipped..];
        let fields = &payload[..payload.len().min(self.left as usize)];
        self.left -= fields.len() as u32;
        let found = self.fields.read(fields).unwrap_or_else(|Malformed| {
            // Nothing after this can be told; the library ends the connection.
            self.is_broken = true;
            true
        });
        let tells = found && self.is_trailers && !self.was_told;
        self.was_told |= tells;
        tells.then_some(self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{Frames, PREFACE, Passing};
    use super::*;

    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&[len[1], len[2], len[3], kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// Streams that are told, if the bytes come in pieces of so many.
    fn told(frames: &[Vec<u8>], step: usize) -> Vec<u32> {
        let bytes = [&PREFACE[..], &frames.concat()].concat();
        let (mut follower, mut trailers, mut told) = (Frames::of_client(), Trailers::default(), Vec::new());
        for part in bytes.chunks(step) {
            follower.read(part, |passing| match passing {
                Passing::Begins(frame) => trailers.begins(&frame),
                Passing::Fields(fields) => told.extend(trailers.read(fields)),
            });
        }
        told
    }

    #[test]
    fn pseudo_fields_are_told_of_in_trailers_only() {
        // GET / of a host that is remembered, and of `x: y`.
        let head = [&b"\x82\x84\x86\x41\x09shop.test"[..], b"\x40\x01x\x01y"].concat();
        let open = |stream| frame(HEADERS, 4, stream, &head);
        let end = |stream, block: &[u8]| frame(HEADERS, 5, stream, block);
        for (what, frames, wanted) in [
            ("heads", vec![open(1), open(3)], vec![]),
            ("honest trailers", vec![open(1), end(1, b"\xbe"), open(3), end(3, b"\0\x01z\x01y")], vec![]),
            ("a static one", vec![open(1), end(1, b"\x84")], vec![1]),
            ("a remembered one", vec![open(1), open(3), end(1, b"\xbf")], vec![1]),
            ("a name from the table", vec![open(1), end(1, b"\x04\x02/x")], vec![1]),
            ("one in letters", vec![open(1), end(1, b"\0\x05:path\x01/")], vec![1]),
            ("one in Huffman codes", vec![open(1), end(1, b"\0\x84\xb9\x58\xd3\x3f\x01/")], vec![1]),
            ("behind others, told once", vec![open(1), end(1, b"\xbe\x84\x84")], vec![1]),
            ("the second of two streams", vec![open(1), open(3), end(3, b"\x84"), end(1, b"\xbe")], vec![3]),
            ("padded", vec![open(1), frame(HEADERS, 8 | 5, 1, b"\x03\x84\0\0\0")], vec![1]),
            ("padding that looks like one", vec![open(1), frame(HEADERS, 8 | 5, 1, b"\x03\xbe\x84\x84\x84")], vec![]),
            ("with a priority", vec![open(1), frame(HEADERS, 0x20 | 5, 1, b"\0\0\0\0\x84\xbe")], vec![]),
            ("after a priority", vec![open(1), frame(HEADERS, 0x28 | 5, 1, b"\x01\0\0\0\0\x10\x84\0")], vec![1]),
            ("continued", vec![open(1), frame(HEADERS, 1, 1, b"\xbe"), frame(CONTINUATION, 4, 1, b"\x84")], vec![1]),
            (
                "cut in a name",
                vec![open(1), frame(HEADERS, 1, 1, b"\0\x05"), frame(CONTINUATION, 4, 1, b":path\x01/")],
                vec![1],
            ),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                assert_eq!(told(&frames, step), wanted, "{what}, {step} bytes at a time");
            }
        }
    }

    #[test]
    fn what_may_not_be_a_trailer_is_known_by_its_name() {
        for (name, forbidden) in [("host", true), ("content-length", true), ("transfer-encoding", true), ("x", false)] {
            assert_eq!(is_forbidden(name.as_bytes()), forbidden, "{name}");
        }
    }
}

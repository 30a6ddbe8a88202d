//! HTTP/2 frames as they pass by: their kinds and ends, not their contents. RFC 9113 sections 3.4 and 4.1.
//!
//! The HTTP/2 library reads the same bytes. What it does not tell is how long a client takes over one frame, and
//! how many of them say nothing; both are bounded here.

/// What a client that speaks HTTP/2 sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD: usize = 9;

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    WithPreface,
    /// So far it could be either.
    Unclear,
    Otherwise,
}

pub fn begins(input: &[u8]) -> Begins {
    let common = input.len().min(PREFACE.len());
    match input[..common] == PREFACE[..common] {
        true if common == PREFACE.len() => Begins::WithPreface,
        // One byte says nothing yet, and `PRI` is no method of HTTP/1.
        true => Begins::Unclear,
        false => Begins::Otherwise,
    }
}

/// A frame whose first nine bytes have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub len: u32,
    /// 0: the connection itself.
    pub stream: u32,
    /// The last of its kind: of a stream (DATA, HEADERS), of a block of fields (HEADERS, CONTINUATION).
    pub ends_stream: bool,
    pub ends_block: bool,
    pub is_ack: bool,
    /// What stands before the fields of HEADERS, and behind them.
    pub is_padded: bool,
    pub has_priority: bool,
}

/// What passes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing<'a> {
    Begins(Frame),
    /// Bytes inside the frame that began last, of HEADERS and CONTINUATION only.
    Fields(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// PUSH_PROMISE, and what nobody knows.
    Other,
}

/// Follows what one side of a connection sends.
#[derive(Debug, Clone)]
pub struct Frames {
    preface_left: usize,
    head: [u8; HEAD],
    have: usize,
    payload_left: u32,
    is_data: bool,
    is_fields: bool,
    in_block: bool,
}

impl Frames {
    /// From a client's first byte.
    pub fn of_client() -> Frames {
        Frames {
            preface_left: PREFACE.len(),
            head: [0; HEAD],
            have: 0,
            payload_left: 0,
            is_data: false,
            is_fields: false,
            in_block: false,
        }
    }

    /// Follows `bytes` and tells what passes by in them.
    pub fn read(&mut self, mut bytes: &[u8], mut passes: impl FnMut(Passing<'_>)) {
        let of_preface = self.preface_left.min(bytes.len());
        self.preface_left -= of_preface;
        bytes = &bytes[of_preface..];
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let passed = bytes.len().min(self.payload_left as usize);
                self.payload_left -= passed as u32;
                if self.is_fields {
                    passes(Passing::Fields(&bytes[..passed]));
                }
                bytes = &bytes[passed..];
                continue;
            }
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                let frame = frame(&self.head);
                self.have = 0;
                self.payload_left = frame.len;
                self.is_data = frame.kind == Kind::Data;
                self.is_fields = matches!(frame.kind, Kind::Headers | Kind::Continuation);
                if self.is_fields {
                    self.in_block = !frame.ends_block;
                }
                passes(Passing::Begins(frame));
            }
        }
    }

    /// A block of fields is begun, and goes on in the next frame.
    pub fn is_in_block(&self) -> bool {
        self.in_block
    }

    /// The client owes us bytes of something that is short by nature: the preface, a frame that is no DATA, or a
    /// block of fields. (How long a body may take is another question.)
    pub fn owes(&self) -> bool {
        self.preface_left > 0 || self.have > 0 || self.in_block || (self.payload_left > 0 && !self.is_data)
    }
}

fn frame(head: &[u8; HEAD]) -> Frame {
    let flags = head[4];
    let kind = match head[3] {
        0 => Kind::Data,
        1 => Kind::Headers,
        2 => Kind::Priority,
        3 => Kind::Reset,
        4 => Kind::Settings,
        6 => Kind::Ping,
        7 => Kind::GoAway,
        8 => Kind::WindowUpdate,
        9 => Kind::Continuation,
        _ => Kind::Other,
    };
    let ends_stream = matches!(kind, Kind::Data | Kind::Headers) && flags & 1 != 0;
    let ends_block = matches!(kind, Kind::Headers | Kind::Continuation) && flags & 4 != 0;
    let is_ack = matches!(kind, Kind::Settings | Kind::Ping) && flags & 1 != 0;
    Frame {
        kind,
        len: u32::from_be_bytes([0, head[0], head[1], head[2]]),
        stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        ends_stream,
        ends_block,
        is_ack,
        is_padded: kind == Kind::Headers && flags & 8 != 0,
        has_priority: kind == Kind::Headers && flags & 0x20 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&[len[1], len[2], len[3], kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_connection_begins_with_the_preface_or_not() {
        for len in 0..PREFACE.len() {
            assert_eq!(begins(&PREFACE[..len]), Begins::Unclear, "{len}");
        }
        assert_eq!(begins(PREFACE), Begins::WithPreface);
        assert_eq!(begins(&[&PREFACE[..], b"x"].concat()), Begins::WithPreface);
        for other in [&b"GET / HTTP/1.1"[..], b"PRI * HTTP/2.1", b"PROPFIND / HTTP/1.1\r\n", b"\r\n", b"pri"] {
            assert_eq!(begins(other), Begins::Otherwise, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn frames_are_told_apart_wherever_the_bytes_are_cut() {
        let bytes = [
            PREFACE.to_vec(),
            frame_of(4, 0, b""),
            frame_of(1, 0, b"abc"),
            frame_of(9, 4, b"de"),
            frame_of(0, 1, &[7; 300]),
            frame_of(6, 1, &[0; 8]),
            frame_of(3, 0, &[0; 4]),
        ]
        .concat();
        for step in 1..=bytes.len() {
            let mut frames = Frames::of_client();
            let (mut seen, mut fields) = (Vec::new(), Vec::new());
            for part in bytes.chunks(step) {
                frames.read(part, |passing| match passing {
                    Passing::Begins(frame) => seen.push((frame.kind, frame.len)),
                    Passing::Fields(bytes) => fields.extend_from_slice(bytes),
                });
            }
            assert!(!frames.owes(), "{step}");
            assert_eq!(fields, b"abcde", "{step}");
            assert_eq!(
                seen,
                [
                    (Kind::Settings, 0),
                    (Kind::Headers, 3),
                    (Kind::Continuation, 2),
                    (Kind::Data, 300),
                    (Kind::Ping, 8),
                    (Kind::Reset, 4)
                ],
                "{step}"
            );
        }
    }

    #[test]
    fn what_is_begun_is_owed_but_for_a_body() {
        let begun = |bytes: &[u8]| {
            let mut frames = Frames::of_client();
            frames.read(PREFACE, |_| {});
            frames.read(bytes, |_| {});
            frames.owes()
        };
        assert!(Frames::of_client().owes(), "the preface itself");
        assert!(!begun(b""));
        assert!(begun(&frame_of(1, 4, b"abc")[..4]), "half of a frame's head");
        assert!(begun(&frame_of(1, 4, b"abc")[..10]), "half of its fields");
        assert!(begun(&frame_of(1, 0, b"abc")), "a block that goes on");
        assert!(!begun(&frame_of(1, 4, b"abc")));
        assert!(!begun(&frame_of(0, 0, b"abc")[..10]), "a body has its own limit");
    }
}

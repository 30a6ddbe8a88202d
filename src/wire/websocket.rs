//! WebSocket frames, followed without being changed, so that one of ours can stand between two of theirs.
//! RFC 6455 sections 5.2 and 5.5.
//!
//! Payloads are not looked at. A control frame may stand between the fragments of a message, so the end of any
//! frame is a place for a Close.

/// Close, 1012 "service restart": come back, to another version.
pub const CLOSE_DRAINED: &[u8] = b"\x88\x11\x03\xf4version drained";
/// Close, 1001 "going away".
pub const CLOSE_SHUTDOWN: &[u8] = b"\x88\x0f\x03\xe9shutting down";

const OPCODE_CLOSE: u8 = 8;
/// Two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;

/// Where in a sequence of frames the next byte stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frames {
    header: [u8; HEADER_MAX],
    header_len: usize,
    payload_left: u64,
    close_seen: bool,
    is_lost: bool,
}

impl Frames {
    /// A frame has ended and the next has not begun.
    pub fn is_between_frames(&self) -> bool {
        !self.is_lost && self.header_len == 0 && self.payload_left == 0
    }

    /// A Close has gone by; nothing may follow it.
    pub fn close_seen(&self) -> bool {
        self.close_seen
    }

    /// Takes bytes up to the end of the frame they are in, and says how many those were.
    pub fn step(&mut self, bytes: &[u8]) -> usize {
        if self.is_lost {
            return bytes.len();
        }
        let mut taken = 0;
        if self.payload_left == 0 {
            while taken < bytes.len() {
                self.header[self.header_len] = bytes[taken];
                self.header_len += 1;
                taken += 1;
                if self.header_len == header_size(&self.header[..self.header_len]) {
                    self.begin_payload();
                    break;
                }
            }
        }
        let rest = &bytes[taken..];
        let payload = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(rest.len());
        self.payload_left -= payload as u64;
        taken + payload
    }

    fn begin_payload(&mut self) {
        let [first, second, extended @ ..] = self.header;
        self.payload_left = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([extended[0], extended[1]])),
            127 => u64::from_be_bytes(extended[..8].try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        self.close_seen |= first & 0x0f == OPCODE_CLOSE;
        self.header_len = 0;
        // The top bit of a length must be 0; what sets it is not WebSocket and has no frame ends to find.
        self.is_lost = self.payload_left > i64::MAX as u64;
    }
}

/// Bytes of the whole header that begins like this; more than there are while that is not known.
fn header_size(begun: &[u8]) -> usize {
    let Some(second) = begun.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    2 + length + mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, len: usize, masked: bool) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match len {
            0..126 => frame.push(mask_bit | len as u8),
            126..65_536 => {
                frame.push(mask_bit | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0x88, if masked { 4 } else { 0 }));
        frame.extend(std::iter::repeat_n(0x81, len));
        frame
    }

    #[test]
    fn each_length_form_ends_where_it_says() {
        for masked in [false, true] {
            for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
                let frame = frame(2, len, masked);
                let mut two = frame.clone();
                two.extend(&frame);
                let mut frames = Frames::default();
                assert_eq!(frames.step(&two), frame.len(), "{len} {masked}");
                assert!(frames.is_between_frames());
                for (at, byte) in frame.iter().enumerate() {
                    assert_eq!(frames.step(&[*byte]), 1);
                    assert_eq!(frames.is_between_frames(), at + 1 == frame.len(), "{len} {masked} at {at}");
                }
            }
        }
    }

    #[test]
    fn a_close_is_noticed_and_ours_are_closes() {
        for close in [CLOSE_DRAINED, CLOSE_SHUTDOWN] {
            let mut frames = Frames::default();
            assert_eq!(frames.step(close), close.len());
            assert!(frames.is_between_frames() && frames.close_seen());
        }
        assert_eq!(u16::from_be_bytes([CLOSE_DRAINED[2], CLOSE_DRAINED[3]]), 1012);
        assert_eq!(u16::from_be_bytes([CLOSE_SHUTDOWN[2], CLOSE_SHUTDOWN[3]]), 1001);
    }

    #[test]
    fn an_impossible_length_has_no_end() {
        let mut frames = Frames::default();
        let header = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(frames.step(&header), header.len());
        assert!(!frames.is_between_frames());
        assert_eq!(frames.step(b"anything"), 8);
        assert!(!frames.is_between_frames());
    }
}

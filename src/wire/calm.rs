//! How many HTTP/2 frames a client may send that cost us and bring nothing. RFC 9113 section 10.5.
//!
//! Floods (rapid reset, SETTINGS, PING, empty DATA, WINDOW_UPDATE) are sequences of frames that are all allowed.
//! So they are counted, in spans of ten seconds, against what an honest client needs for what it gets.

use super::frames::{Frame, Kind};

const SPAN_MS: u64 = 10_000;
/// One WINDOW_UPDATE for so many bytes that were sent to the client is always fine.
const BYTES_PER_UPDATE: u64 = 64;

/// What one connection may send.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub resets: u32,
    pub control_frames: u32,
}

/// What flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    Resets,
    Control,
    /// Requests that broke the rules of the protocol at their end.
    Malformed,
}

/// Counts one connection's frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calm {
    span: u64,
    resets: u32,
    /// Streams that were answered to their end: each makes up for one that was cancelled.
    answered: u32,
    control: u32,
    updates: u32,
    sent: u64,
}

impl Calm {
    /// A frame of the client.
    pub fn saw(&mut self, frame: &Frame, now_ms: u64, allowed: &Allowed) -> Result<(), Flood> {
        self.at(now_ms);
        match frame.kind {
            Kind::Reset => self.resets += 1,
            Kind::Settings | Kind::Ping if frame.is_ack => {}
            Kind::Settings | Kind::Ping | Kind::Priority | Kind::GoAway | Kind::Other => self.control += 1,
            Kind::Data if frame.len == 0 && !frame.ends_stream => self.control += 1,
            Kind::Continuation if frame.len == 0 => self.control += 1,
            Kind::WindowUpdate => self.updates += 1,
            Kind::Data | Kind::Headers | Kind::Continuation => {}
        }
        if self.resets > allowed.resets.saturating_add(self.answered) {
            return Err(Flood::Resets);
        }
        let fair = self.sent / BYTES_PER_UPDATE + u64::from(self.answered) * 4;
        let idle_updates = u64::from(self.updates).saturating_sub(fair);
        if u64::from(self.control) + idle_updates > u64::from(allowed.control_frames) {
            return Err(Flood::Control);
        }
        Ok(())
    }

    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// A stream was answered to its end.
    pub fn answered(&mut self) {
        self.answered = self.answered.saturating_add(1);
    }

    fn at(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.span) >= SPAN_MS {
            *self = Calm { span: now_ms, ..Calm::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowed = Allowed { resets: 3, control_frames: 5 };

    fn frame(kind: Kind) -> Frame {
        Frame {
            kind,
            len: 8,
            stream: 1,
            ends_stream: false,
            ends_block: true,
            is_ack: false,
            is_padded: false,
            has_priority: false,
        }
    }

    fn until_flood(calm: &mut Calm, frame: Frame, now_ms: u64) -> (u32, Flood) {
        for nth in 1..10_000 {
            if let Err(flood) = calm.saw(&frame, now_ms, &ALLOWED) {
                return (nth, flood);
            }
        }
        panic!("{frame:?} is never too much");
    }

    #[test]
    fn what_brings_nothing_is_counted() {
        for kind in [Kind::Settings, Kind::Ping, Kind::Priority, Kind::WindowUpdate, Kind::Other] {
            assert_eq!(until_flood(&mut Calm::default(), frame(kind), 1), (6, Flood::Control), "{kind:?}");
        }
        let empty = Frame { len: 0, ..frame(Kind::Data) };
        assert_eq!(until_flood(&mut Calm::default(), empty, 1), (6, Flood::Control));
        assert_eq!(until_flood(&mut Calm::default(), frame(Kind::Reset), 1), (4, Flood::Resets));
    }

    #[test]
    fn what_brings_something_is_not() {
        let mut calm = Calm::default();
        let acks = Frame { is_ack: true, ..frame(Kind::Ping) };
        let end = Frame { len: 0, ends_stream: true, ..frame(Kind::Data) };
        for frame in [frame(Kind::Headers), frame(Kind::Data), frame(Kind::Continuation), acks, end] {
            for _ in 0..1_000 {
                assert_eq!(calm.saw(&frame, 1, &ALLOWED), Ok(()));
            }
        }
    }

    #[test]
    fn answers_and_time_make_up_for_it() {
        let mut calm = Calm::default();
        (0..10).for_each(|_| calm.answered());
        assert_eq!(until_flood(&mut calm, frame(Kind::Reset), 1), (14, Flood::Resets));
        assert_eq!(until_flood(&mut calm, frame(Kind::Reset), 1 + SPAN_MS), (4, Flood::Resets), "a new span");
        let mut calm = Calm::default();
        calm.sent(6_400);
        assert_eq!(until_flood(&mut calm, frame(Kind::WindowUpdate), 1), (106, Flood::Control));
    }
}

//! Which requests failed: enough of the first and of the last one of each arm to find them in a log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::analysis::Arm;

/// Longer ids are cut: a UUID has 36, a trace id 32.
const ID_MAX: usize = 64;

/// What a request is called in `x-request-id`, in the access log and in reports: at most 64 visible ASCII characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; ID_MAX],
    length: u8,
}

impl RequestId {
    /// As a client sent it, cut, with `_` for whatever is no visible ASCII character. `None` if it is empty.
    pub fn sent(value: &[u8]) -> Option<RequestId> {
        let mut id = RequestId { bytes: [0; ID_MAX], length: 0 };
        for byte in value.iter().take(ID_MAX) {
            id.bytes[usize::from(id.length)] = if byte.is_ascii_graphic() { *byte } else { b'_' };
            id.length += 1;
        }
        (id.length > 0).then_some(id)
    }

    /// 32 hexadecimal digits, as nginx makes them. Unique if the two numbers together are.
    pub fn made(high: u64, low: u64) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut id = RequestId { bytes: [0; ID_MAX], length: 32 };
        for (at, digit) in id.bytes.iter_mut().take(32).enumerate() {
            let number = if at < 16 { high } else { low };
            *digit = DIGITS[(number >> (60 - 4 * (at % 16)) & 0xf) as usize];
        }
        id
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("only ASCII is put in")
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let text = String::deserialize(deserializer)?;
        RequestId::sent(text.as_bytes()).ok_or_else(|| D::Error::custom("an id cannot be empty"))
    }
}

/// A request that an arm failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRequest {
    pub id: RequestId,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// What the endpoint answered; 0 if it did not.
    pub status: u16,
    pub endpoint: Option<SocketAddr>,
}

/// The first and the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    pub first: FailedRequest,
    pub last: FailedRequest,
}

/// Of both arms: stable's first, then the canary's.
#[derive(Debug, Default)]
pub struct Notes(Mutex<[Option<Failing>; 2]>);

impl Notes {
    pub fn of(known: [Option<Failing>; 2]) -> Notes {
        Notes(Mutex::new(known))
    }

    pub fn note(&self, arm: Arm, request: FailedRequest) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = &mut notes[super::trial::at(arm)];
        failing.get_or_insert(Failing { first: request, last: request }).last = request;
    }

    pub fn known(&self) -> [Option<Failing>; 2] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_visible_and_bounded_whatever_is_sent() {
        let id = |value: &[u8]| RequestId::sent(value).map(|id| id.as_str().to_string());
        assert_eq!(id(b""), None);
        assert_eq!(id(b"7f3a-11"), Some("7f3a-11".into()));
        assert_eq!(id(b"a b\x1b[31m\xff"), Some("a_b_[31m_".into()));
        assert_eq!(id(&[b'x'; 500]).map(|id| id.len()), Some(64));
    }

    #[test]
    fn a_made_id_is_32_hexadecimal_digits_of_both_numbers() {
        let id = RequestId::made(0x0123_4567_89ab_cdef, 0xfedc_0000_0000_0001);
        assert_eq!(id.as_str(), "0123456789abcdeffedc000000000001");
        assert_eq!(serde_json::to_string(&id).expect("text"), "\"0123456789abcdeffedc000000000001\"");
    }

    #[test]
    fn the_first_and_the_last_failure_of_each_arm_are_kept_and_survive() {
        let request = |id: &str, at| FailedRequest {
            id: RequestId::sent(id.as_bytes()).expect("not empty"),
            at,
            status: 500,
            endpoint: Some(([10, 0, 0, 1], 80).into()),
        };
        let notes = Notes::default();
        for (at, id) in ["one", "two", "three"].into_iter().enumerate() {
            notes.note(Arm::Canary, request(id, at as u64));
        }
        let known = notes.known();
        assert_eq!(known, [None, Some(Failing { first: request("one", 0), last: request("three", 2) })]);
        let text = serde_json::to_string(&known).expect("text and numbers");
        assert_eq!(Notes::of(serde_json::from_str(&text).expect("the same")).known(), known);
    }
}

//! Answers made smaller for clients that can read them: which, and how. RFC 9110 sections 8.4, 8.8.3 and 12.5.3.
//!
//! What may not be touched is left alone: what is encoded already, parts (206), event streams, `no-transform`, and whatever
//! carries a digest of its bytes. Everything streams: a small piece is flushed at once, because its sender may have nothing
//! more to say for a while, and large ones are not, because more is on its way. Each data thread has so many encoders at
//! once and no more; beyond that answers go out as they are.

use std::cell::Cell;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, VARY,
};
use http::{StatusCode, Version};
use pingora_error::Result;
use pingora_http::ResponseHeader;

use crate::config::model::{Coding, Compression};
use crate::wire::token::list;

/// A smaller piece is flushed.
const FLUSH_BELOW: usize = 8 * 1024;
/// Encoders of one data thread at once. Each takes from a quarter of a MiB (gzip) to two (zstd).
const ENCODERS_MAX: u32 = 128;
/// The window of brotli and zstd: 256 KiB.
const WINDOW_LOG: u32 = 18;

/// Fields that say what the bytes of a body are.
const DIGESTS: [&str; 4] = ["digest", "content-digest", "repr-digest", "content-md5"];

/// What becomes of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Leave,
    /// Not for this client, but for others: caches must know.
    LeaveForThisClient,
    Encode(Coding),
}

/// What of a request decides.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub version: Version,
    pub headers: &'a HeaderMap,
}

/// Pure. `response`: the endpoint's.
pub fn decide(policy: &Compression, asked: Asked<'_>, response: &ResponseHeader) -> Verdict {
    if !may_change(policy, response) {
        return Verdict::Leave;
    }
    // An HTTP/1.0 client knows no chunked coding, and the new length is not known.
    let coding = (asked.version != Version::HTTP_10).then(|| wanted(policy, asked.headers)).flatten();
    coding.map_or(Verdict::LeaveForThisClient, Verdict::Encode)
}

fn may_change(policy: &Compression, response: &ResponseHeader) -> bool {
    let headers = &response.headers;
    let field = |name: HeaderName| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let bodiless = response.status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED]
            .contains(&response.status);
    let is_encoded = headers.contains_key(CONTENT_ENCODING) && field(CONTENT_ENCODING) != b"identity";
    let is_fixed = headers.contains_key(CONTENT_RANGE)
        || DIGESTS.iter().any(|name| headers.contains_key(*name))
        || headers
            .get_all(CACHE_CONTROL)
            .iter()
            .any(|value| list(value.as_bytes()).any(|one| one.eq_ignore_ascii_case(b"no-transform")));
    let length = std::str::from_utf8(field(CONTENT_LENGTH)).ok().and_then(|text| text.parse::<u64>().ok());
    let is_small = length.is_some_and(|length| length < policy.min_size.max(1));
    let essence = field(CONTENT_TYPE).split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_stream = essence.eq_ignore_ascii_case(b"text/event-stream");
    !bodiless
        && !is_encoded
        && !is_fixed
        && !is_small
        && !is_stream
        && policy.types.iter().any(|it| it.matches(essence))
}

/// The coding that the client likes best, of those it takes; ours breaks ties. Without the field it wants none.
fn wanted(policy: &Compression, headers: &HeaderMap) -> Option<Coding> {
    let mut liked: Vec<(&[u8], u16)> = Vec::new();
    for line in headers.get_all(ACCEPT_ENCODING) {
        for item in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
        {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
            liked.push((name, weight.map_or(1000, thousandths)));
        }
    }
    let of = |name: &str| {
        let exact = liked.iter().find(|(have, _)| have.eq_ignore_ascii_case(name.as_bytes()));
        exact.or_else(|| liked.iter().find(|(have, _)| *have == b"*")).map(|(_, weight)| *weight)
    };
    let identity =
        liked.iter().find(|(have, _)| have.eq_ignore_ascii_case(b"identity")).map_or(0, |(_, weight)| *weight);
    let mut best: Option<(Coding, u16)> = None;
    for coding in &policy.codings {
        let weight = of(coding.as_str()).unwrap_or(0);
        if weight > 0 && weight >= identity && best.is_none_or(|(_, most)| weight > most) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// `0.5` as 500; what is no weight is none.
fn thousandths(text: &[u8]) -> u16 {
    let weight = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |weight| (weight * 1000.0) as u16)
}

/// Makes the head that of the encoded answer; `chunked`: the client speaks HTTP/1.1.
pub fn adjust(response: &mut ResponseHeader, verdict: Verdict, chunked: bool) -> Result<()> {
    let coding = match verdict {
        Verdict::Leave => return Ok(()),
        Verdict::LeaveForThisClient => return vary(response),
        Verdict::Encode(coding) => coding,
    };
    vary(response)?;
    response.insert_header(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()))?;
    response.remove_header(&CONTENT_LENGTH);
    response.remove_header(&ACCEPT_RANGES);
    if chunked {
        response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    // The bytes are other ones: the answer is only weakly the same.
    let strong = response.headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned();
    if let Some(tag) = strong
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        response.insert_header(ETAG, weak)?;
    }
    Ok(())
}

fn vary(response: &mut ResponseHeader) -> Result<()> {
    let says = |value: &HeaderValue| {
        list(value.as_bytes()).any(|one| one == b"*" || one.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if !response.headers.get_all(VARY).iter().any(says) {
        response.append_header(VARY, HeaderValue::from_static("Accept-Encoding"))?;
    }
    Ok(())
}

thread_local! {
    static ENCODERS: Cell<u32> = const { Cell::new(0) };
}

/// A place among the encoders of a data thread.
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let taken = ENCODERS.get();
        (taken < ENCODERS_MAX).then(|| {
            ENCODERS.set(taken + 1);
            Place
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ENCODERS.set(ENCODERS.get().saturating_sub(1));
    }
}

/// Encodes one body.
pub struct Encoder {
    writer: Writer,
    _place: Place,
}

enum Writer {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Done,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// `None`: this data thread has as many as it may have.
    pub fn new(coding: Coding, level: u32) -> Option<Encoder> {
        let place = Place::take()?;
        let writer = match coding {
            Coding::Gzip => Writer::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(level))),
            Coding::Brotli => {
                Writer::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, level, WINDOW_LOG)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level as i32).ok()?;
                encoder.window_log(WINDOW_LOG).ok()?;
                Writer::Zstd(encoder)
            }
        };
        Some(Encoder { writer, _place: place })
    }

    /// What can be sent after this piece; all that is left after the last.
    pub fn encode(&mut self, piece: &[u8], is_last: bool) -> io::Result<Bytes> {
        let flush = !piece.is_empty() && piece.len() < FLUSH_BELOW;
        let out = match &mut self.writer {
            Writer::Gzip(gzip) => {
                gzip.write_all(piece)?;
                match (is_last, flush) {
                    (true, _) => gzip.try_finish()?,
                    (false, true) => gzip.flush()?,
                    (false, false) => {}
                }
                std::mem::take(gzip.get_mut())
            }
            Writer::Zstd(zstd) => {
                zstd.write_all(piece)?;
                match (is_last, flush) {
                    (true, _) => zstd.do_finish()?,
                    (false, true) => zstd.flush()?,
                    (false, false) => {}
                }
                std::mem::take(zstd.get_mut())
            }
            Writer::Brotli(brotli) => {
                brotli.write_all(piece)?;
                if flush && !is_last {
                    brotli.flush()?;
                }
                std::mem::take(brotli.get_mut())
            }
            Writer::Done => Vec::new(),
        };
        if !is_last {
            return Ok(out.into());
        }
        // Brotli ends its stream when it is taken apart.
        Ok(match std::mem::replace(&mut self.writer, Writer::Done) {
            Writer::Brotli(brotli) => [out, brotli.into_inner()].concat().into(),
            Writer::Gzip(_) | Writer::Zstd(_) | Writer::Done => out.into(),
        })
    }
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;

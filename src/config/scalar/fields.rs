//! Parts of requests and responses.

use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};
use super::super::hint;
use super::super::model::MediaType;

/// A request method in capital letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl Scalar for MethodName {
    const KIND: &'static str = "a method";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
        let upper = text.to_ascii_uppercase();
        if upper != text && known.contains(&upper.as_str()) {
            return Err(Wrong::because("methods are case-sensitive").hint(format!("did you mean `{upper}`?")));
        }
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT) => Err(Wrong::because("CONNECT is never forwarded")),
            Ok(method) => Ok(Self(method)),
            Err(_) => Err(Wrong::because("write a method such as `GET` or `POST`")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["GET", "POST"] })
    }
}

/// A header's name, any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub HeaderName);

impl Scalar for Header {
    const KIND: &'static str = "a header name";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let name = text.strip_suffix(':').unwrap_or(text);
        match (HeaderName::from_bytes(text.as_bytes()), HeaderName::from_bytes(name.as_bytes())) {
            (Ok(name), _) => Ok(Self(name)),
            (Err(_), Ok(_)) => Err(Wrong::because("write the name alone").hint(format!("did you mean `{name}`?"))),
            (Err(_), Err(_)) => Err(Wrong::because("names of headers are letters, digits and `-`, such as `x-user`")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" })
    }
}

/// A header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderText(pub HeaderValue);

impl Scalar for HeaderText {
    const KIND: &'static str = "a header value";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let visible = text.chars().all(|c| c == '\t' || (!c.is_control() && c.is_ascii()));
        match HeaderValue::from_str(text) {
            Ok(value) if visible && text.trim() == text => Ok(Self(value)),
            _ => Err(Wrong::because("one line of visible ASCII, without blanks at either end")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^([!-~]([\\t -~]*[!-~])?)?$" })
    }
}

/// `text/html`, or `text/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaTypeText(pub MediaType);

impl Scalar for MediaTypeText {
    const KIND: &'static str = "a media type";
    fn parse(text: &str) -> Result<Self, Wrong> {
        match MediaType::new(text) {
            Some(it) => Ok(Self(it)),
            None => Err(Wrong::because("write type and subtype, such as `text/html` or `text/*`, without parameters")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9!#$&^_.+-]+/([A-Za-z0-9!#$&^_.+-]+|\\*)$" })
    }
}

/// `200`, or `200-299`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRange(pub RangeInclusive<u16>);

impl Scalar for StatusRange {
    const KIND: &'static str = "a status";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let status = |part: &str| match part.trim().parse::<u16>() {
            Ok(status) if (100..=599).contains(&status) => Ok(status),
            _ => Err(Wrong::because("write a status such as `200`, or a range such as `200-299`")),
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (status(from)?, status(to)?);
        if from > to {
            return Err(Wrong::because("the range is empty").hint(format!("did you mean `{to}-{from}`?")));
        }
        Ok(Self(from..=to))
    }
    fn shape() -> Json {
        json!({
            "anyOf": [
                { "type": "integer", "minimum": 100, "maximum": 599 },
                { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
            ]
        })
    }
}

/// A gRPC status that is no success, by name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcCode(pub u8);

/// By number, from 0 on (grpc/doc/statuscodes.md).
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl GrpcCode {
    pub fn name(code: u8) -> &'static str {
        GRPC_CODES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
    }
}

impl Scalar for GrpcCode {
    const KIND: &'static str = "a gRPC status";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write its name or number, such as `UNAVAILABLE` or `14`";
        let by_name = GRPC_CODES.iter().position(|name| *name == text);
        let by_number = || text.parse::<usize>().ok().filter(|code| *code < GRPC_CODES.len());
        match by_name.or_else(by_number) {
            Some(0) => Err(Wrong::because("`OK` is no failure")),
            Some(code) => Ok(Self(code as u8)),
            None => Err(match hint::nearest(text, GRPC_CODES) {
                Some(near) => Wrong::because(WHY).hint(format!("did you mean `{near}`?")),
                None => Wrong::because(WHY),
            }),
        }
    }
    fn shape() -> Json {
        json!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 16 },
                { "type": "string", "pattern": format!("^({})$", GRPC_CODES[1..].join("|")) },
            ]
        })
    }
}

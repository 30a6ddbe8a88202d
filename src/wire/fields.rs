//! The fields of a request that say something about the message itself: whom it is for, where it ends, what becomes
//! of the connection. RFC 9110 sections 7.2, 7.6.1, 7.8 and 10.1.1, RFC 9112 section 6.

use super::authority::is_host;
use super::head::{Refusal, RequestBody, Span, Upgrade, Version, refuse};
use super::request_line::RequestLine;
use super::token::{decimal, is_token, list};

/// Options that one client may name in Connection.
const OPTIONS_MAX: usize = 16;

/// What all fields of one head say together.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) host: Option<Span>,
    content_length: Option<u64>,
    chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    nominates_upgrade: bool,
    upgrades: u32,
    websocket: bool,
    pub(super) expect_continue: bool,
    options: usize,
}

impl Fields {
    pub(super) fn collect(head: &[u8], fields: &[httparse::Header<'_>]) -> Result<Fields, Refusal> {
        let mut seen = Fields::default();
        for field in fields {
            let name = field.name.as_bytes();
            // The length tells apart all names that matter but two.
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => seen.host(head, field.value)?,
                6 if name.eq_ignore_ascii_case(b"expect") => seen.expect(field.value)?,
                7 if name.eq_ignore_ascii_case(b"upgrade") => seen.upgrade_field(field.value),
                10 if name.eq_ignore_ascii_case(b"connection") => seen.connection(field.value)?,
                14 if name.eq_ignore_ascii_case(b"content-length") => seen.length(field.value)?,
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => seen.transfer_encoding(field.value)?,
                _ => {}
            }
        }
        Ok(seen)
    }

    fn host(&mut self, head: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if self.host.is_some() {
            return refuse(400, "more than one Host field");
        }
        if !is_host(value) {
            return refuse(400, "the Host field is not one valid host");
        }
        let start = value.as_ptr() as usize - head.as_ptr() as usize;
        self.host = Some(Span::between(start, start + value.len()));
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return refuse(417, "only the expectation 100-continue is known");
        }
        self.expect_continue = true;
        Ok(())
    }

    fn upgrade_field(&mut self, value: &[u8]) {
        self.upgrades += 1;
        self.websocket = value.eq_ignore_ascii_case(b"websocket");
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        const PROTECTED: [&[u8]; 5] = [b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization"];
        for option in list(value) {
            self.options += 1;
            if self.options > OPTIONS_MAX {
                return refuse(400, "too many options in the Connection field");
            }
            if !is_token(option) {
                return refuse(400, "malformed Connection field");
            }
            if PROTECTED.iter().any(|name| option.eq_ignore_ascii_case(name)) {
                return refuse(400, "the Connection field names a field that is not the connection's");
            }
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.nominates_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return refuse(400, "more than one Content-Length");
        }
        match decimal(value) {
            Some(length) => self.content_length = Some(length),
            None => return refuse(400, "the Content-Length is not one number"),
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return refuse(400, "more than one Transfer-Encoding field");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(other_coding(value));
        }
        self.chunked = true;
        Ok(())
    }

    pub(super) fn body(&self, version: Version) -> Result<RequestBody, Refusal> {
        match (self.chunked, self.content_length, version) {
            (true, Some(_), _) => refuse(400, "both Content-Length and Transfer-Encoding"),
            (true, None, Version::Http10) => refuse(400, "Transfer-Encoding in an HTTP/1.0 request"),
            (true, None, Version::Http11) => Ok(RequestBody::Chunked),
            (false, Some(0) | None, _) => Ok(RequestBody::None),
            (false, Some(length), _) => Ok(RequestBody::Length(length)),
        }
    }

    pub(super) fn upgrade(&self, line: &RequestLine, body: RequestBody) -> Option<Upgrade> {
        match (line.version, body) {
            (Version::Http10, _) => None,
            (Version::Http11, _) if self.upgrades == 0 || !self.nominates_upgrade => None,
            (Version::Http11, RequestBody::None) if self.upgrades == 1 && self.websocket && line.is_get => {
                Some(Upgrade::WebSocket)
            }
            (Version::Http11, RequestBody::None | RequestBody::Length(_) | RequestBody::Chunked) => {
                Some(Upgrade::Other)
            }
        }
    }
}

/// 501 for an honest list of codings that ends in `chunked` or names only others, 400 for a dishonest one.
fn other_coding(value: &[u8]) -> Refusal {
    let mut chunked = 0;
    let mut codings = 0;
    let mut last_is_chunked = false;
    for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if !is_token(coding) {
            return Refusal { status: 400, why: "malformed Transfer-Encoding" };
        }
        codings += 1;
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
    }
    if chunked > 1 || (chunked == 1 && (codings == 1 || !last_is_chunked)) {
        return Refusal { status: 400, why: "chunked must be the last transfer coding, once" };
    }
    Refusal { status: 501, why: "the only transfer coding known is chunked" }
}

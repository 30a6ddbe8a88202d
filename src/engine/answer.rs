//! Answers that this proxy makes itself while the engine has the request: which, and how they are accounted.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderValue, Method};
use pingora_error::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::respond;
use crate::outcome::ErrorClass;

#[derive(Debug)]
pub struct Answer {
    what: What,
    close: bool,
}

#[derive(Debug)]
enum What {
    /// Refused or failed here.
    Error {
        status: u16,
        why: Cow<'static, str>,
        retry_after: Option<u32>,
    },
    Redirect {
        status: u16,
        to: String,
    },
    Fixed {
        status: u16,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    },
}

impl Answer {
    /// A short explanation for a person; says nothing of endpoints.
    pub fn error(status: u16, why: impl Into<Cow<'static, str>>) -> Answer {
        Answer { what: What::Error { status, why: why.into(), retry_after: None }, close: false }
    }

    /// Not now, but perhaps in so many seconds.
    pub fn busy(why: impl Into<Cow<'static, str>>, seconds: u32) -> Answer {
        Answer { what: What::Error { status: 503, why: why.into(), retry_after: Some(seconds) }, close: false }
    }

    /// The client asks for too much at once; perhaps in so many seconds.
    pub fn limited(why: impl Into<Cow<'static, str>>, seconds: u32) -> Answer {
        Answer { what: What::Error { status: 429, why: why.into(), retry_after: Some(seconds) }, close: false }
    }

    pub fn redirect(status: u16, to: &str) -> Answer {
        Answer { what: What::Redirect { status, to: to.to_string() }, close: false }
    }

    pub fn fixed(status: u16, headers: &[(HeaderName, HeaderValue)], body: &str) -> Answer {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer { what: What::Fixed { status, headers: headers.to_vec(), body }, close: false }
    }

    /// Nothing more is to be read from this connection.
    pub fn closing(self) -> Answer {
        Answer { close: true, ..self }
    }

    pub async fn send(self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let answer = match self.what {
            What::Error { status, why, retry_after } => {
                ctx.error.get_or_insert(ErrorClass::Local);
                respond::local(status, &why, retry_after)?
            }
            What::Redirect { status, to } => respond::redirect(status, &to)?,
            What::Fixed { status, headers, body } => respond::fixed(status, &headers, body)?,
        };
        let respond::Answer { head: mut response, body } = answer;
        ctx.status = response.status.as_u16();
        ctx.link.answered();
        if self.close {
            session.set_keepalive(None);
        }
        ctx.decorate(&mut response)?;
        let head_only = body.is_empty() || session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(response), head_only).await?;
        if !head_only {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }
}

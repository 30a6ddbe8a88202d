//! Bodies in and out: read within a limit and a deadline, written whole or as a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use super::problem::Problem;

pub type Response = http::Response<Body>;

/// A configuration is text of at most this size.
pub const CONFIG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Everything else.
pub const BYTES_MAX: usize = 64 * 1024;
/// From the end of the head to the end of the body.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What we answer with.
#[derive(Debug)]
pub enum Body {
    Whole(Option<Bytes>),
    /// Ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream(receiver) => receiver.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// Reads a request body of at most `limit` bytes.
pub async fn read<B>(body: B, limit: usize, within: Duration) -> Result<Bytes, Problem>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        let detail = format!("the body is larger than the {} KiB this call takes", limit / 1024);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body broke off: {error}"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", within.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body came too slowly", detail))
        }
    }
}

/// Reads the rest of a body without keeping it, as far as `limit`.
pub async fn discard<B: HttpBody<Data = Bytes> + Unpin>(mut body: B, limit: usize, within: Duration) {
    let mut seen = 0;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > limit {
                return;
            }
        }
    };
    // Whether it ends in time or not, the answer goes out.
    let _ = tokio::time::timeout(within, all).await;
}

pub fn json(value: &impl Serialize) -> Response {
    json_as(StatusCode::OK, "application/json", value)
}

pub fn json_as(status: StatusCode, content_type: &'static str, value: &impl Serialize) -> Response {
    let mut bytes = serde_json::to_vec_pretty(value).expect("our own types have string keys and cannot fail");
    bytes.push(b'\n');
    whole(status, content_type, bytes)
}

pub fn text(status: StatusCode, content_type: &'static str, text: impl Into<String>) -> Response {
    whole(status, content_type, text.into().into_bytes())
}

fn whole(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response {
    with_headers(status, content_type, Body::Whole(Some(bytes.into())))
}

pub fn with_headers(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read_all = |size: usize| read(Full::new(Bytes::from(vec![b'x'; size])), 100, READ_TIMEOUT);
        assert_eq!(read_all(100).await.unwrap().len(), 100);
        assert_eq!(read_all(101).await.unwrap_err().status, 413);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_cut_at_its_limit() {
        let (sender, receiver) = mpsc::channel(4);
        for _ in 0..3 {
            sender.send(Bytes::from(vec![b'x'; 50])).await.unwrap();
        }
        assert_eq!(read(Body::Stream(receiver), 100, READ_TIMEOUT).await.unwrap_err().status, 413);
    }

    #[tokio::test]
    async fn a_body_that_never_ends_meets_its_deadline() {
        let (_sender, receiver) = mpsc::channel(1);
        assert_eq!(read(Body::Stream(receiver), 100, Duration::from_millis(20)).await.unwrap_err().status, 408);
    }
}

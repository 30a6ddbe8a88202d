//! One `grpc.health.v1.Health/Check` over a connection that is made for it: HTTP/2 with prior knowledge.
//!
//! Only `SERVING` passes. A service that the endpoint does not know, or an endpoint that has no such method, is
//! wrongly configured, and said to be.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use super::health::Seen;

/// Bytes of an answer; a right one has seven.
const ANSWER_MAX: usize = 1024;

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckAnswer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks over `stream`, which nobody else uses. `service`: empty for the endpoint as a whole. `deadline` goes to the
/// endpoint too; that it is kept is the caller's.
pub async fn check<S>(stream: S, authority: &str, service: &str, deadline: Duration) -> Seen
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match ask(stream, authority, service, deadline).await {
        Ok(seen) => seen,
        Err(error) if error.is_io() => Seen::Silent(format!("HTTP/2: {error}")),
        Err(error) => Seen::Wrong(format!("HTTP/2: {error}")),
    }
}

async fn ask<S>(stream: S, authority: &str, service: &str, deadline: Duration) -> Result<Seen, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::Builder::new().max_header_list_size(16 * 1024).handshake(stream).await?;
    // What breaks it is seen by the request.
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let mut sender = sender.ready().await?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "switchback-health")
        .header("grpc-timeout", format!("{}m", deadline.as_millis().clamp(1, 99_999_999)))
        .body(());
    let Ok(request) = request else {
        return Ok(Seen::Wrong(format!("`{authority}` cannot be asked for by name")));
    };
    let (answer, mut body) = sender.send_request(request, false)?;
    body.send_data(framed(&CheckRequest { service: service.into() }), true)?;
    let answer = answer.await?;
    if answer.status() != 200 {
        return Ok(Seen::Wrong(format!("status {}", answer.status().as_u16())));
    }
    let (head, mut body) = answer.into_parts();
    // An answer without a message has its status here.
    if let Some(wrong) = refused(&head.headers, service) {
        return Ok(wrong);
    }
    let message = read(&mut body).await?;
    let trailers = body.trailers().await?.unwrap_or_default();
    if let Some(wrong) = refused(&trailers, service) {
        return Ok(wrong);
    }
    Ok(judge(&message))
}

fn framed(message: &CheckRequest) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0); // not compressed
    bytes.put_u32(message.encoded_len() as u32);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut message = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        // What is left out makes the answer wrong, as it should.
        message.extend_from_slice(&part[..part.len().min(ANSWER_MAX - message.len())]);
        body.flow_control().release_capacity(part.len())?;
    }
    Ok(message)
}

/// Another `grpc-status` than OK.
fn refused(fields: &HeaderMap, service: &str) -> Option<Seen> {
    let status = fields.get("grpc-status")?.to_str().unwrap_or("?");
    let why = match status {
        "0" => return None,
        "5" => format!("grpc-status 5: the endpoint has no service `{service}`"),
        "12" => "grpc-status 12: the endpoint has no grpc.health.v1.Health".into(),
        other => format!("grpc-status {other}"),
    };
    Some(Seen::Wrong(why))
}

fn judge(message: &[u8]) -> Seen {
    let answer = message.split_at_checked(5).and_then(|(frame, message)| {
        let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
        let is_whole = frame[0] == 0 && length == message.len();
        CheckAnswer::decode(message).ok().filter(|_| is_whole)
    });
    match answer.map(|answer| answer.status) {
        Some(1) => Seen::Pass,
        Some(2) => Seen::Wrong("NOT_SERVING".into()),
        Some(3) => Seen::Wrong("SERVICE_UNKNOWN".into()),
        Some(_) => Seen::Wrong("UNKNOWN".into()),
        None => Seen::Wrong("not an answer of grpc.health.v1".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::{TcpListener, TcpStream};
    use tonic::codegen::Service;
    use tonic_health::ServingStatus;
    use tonic_health::server::HealthReporter;

    use super::*;

    async fn server() -> (SocketAddr, HealthReporter, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (reporter, health) = tonic_health::server::health_reporter();
        let serve = async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepting");
                let health = health.clone();
                let service = service_fn(move |request| Service::call(&mut health.clone(), request));
                let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        };
        (address, reporter, AbortOnDropHandle::new(tokio::spawn(serve)))
    }

    async fn seen(address: SocketAddr, service: &str) -> Seen {
        let stream = TcpStream::connect(address).await.expect("it listens");
        check(stream, "shop.internal:3000", service, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn only_serving_passes() {
        let (address, reporter, _server) = server().await;
        assert_eq!(seen(address, "").await, Seen::Pass, "the endpoint as a whole");
        reporter.set_service_status("shop.Cart", ServingStatus::Serving).await;
        assert_eq!(seen(address, "shop.Cart").await, Seen::Pass);
        reporter.set_service_status("shop.Cart", ServingStatus::NotServing).await;
        assert_eq!(seen(address, "shop.Cart").await, Seen::Wrong("NOT_SERVING".into()));
        assert!(
            matches!(seen(address, "shop.Nobody").await, Seen::Wrong(why) if why.contains("no service `shop.Nobody`"))
        );
    }

    #[tokio::test]
    async fn what_speaks_no_grpc_is_wrong() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let answering = tokio::spawn(async move {
            for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.ok();
            }
        });
        assert!(!matches!(seen(address, "").await, Seen::Pass));
        assert!(!matches!(seen(address, "").await, Seen::Pass));
        answering.await.expect("no panic");
    }

    #[test]
    fn a_message_is_judged_by_its_status_alone() {
        for (bytes, passes) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], true),
            (&[0, 0, 0, 0, 2, 8, 2], false),
            (&[0, 0, 0, 0, 0], false),
            (&[1, 0, 0, 0, 2, 8, 1], false),
            (&[0, 0, 0, 0, 3, 8, 1], false),
            (&[0, 0, 0, 0, 2, 8], false),
            (&[0, 0], false),
            (b"", false),
        ] {
            assert_eq!(judge(bytes) == Seen::Pass, passes, "{bytes:?}");
        }
    }
}

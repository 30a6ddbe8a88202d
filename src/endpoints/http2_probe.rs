//! One GET over HTTP/2, on a connection that is made for it.

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use super::health::Seen;

/// The head of the final answer. `uri` has scheme, host and path. That a deadline is kept is the caller's.
pub async fn ask<S>(stream: S, uri: &str) -> Result<Parts, Seen>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(uri) = uri.parse::<Uri>() else {
        return Err(Seen::Wrong(format!("`{uri}` cannot be asked for")));
    };
    exchange(stream, uri).await.map_err(|error| match error.is_io() {
        true => Seen::Silent(format!("HTTP/2: {error}")),
        false => Seen::Wrong(format!("HTTP/2: {error}")),
    })
}

async fn exchange<S>(stream: S, uri: Uri) -> Result<Parts, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    let (sender, connection) = builder.max_header_list_size(16 * 1024).handshake::<_, Bytes>(stream).await?;
    // What breaks it is seen by the request.
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let mut sender = sender.ready().await?;
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    for (name, value) in [("user-agent", "switchback-health"), ("accept", "*/*")] {
        request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    let (answer, _) = sender.send_request(request, true)?;
    Ok(answer.await?.into_parts().0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_head_is_the_answer_and_anything_else_is_none() {
        let (ours, theirs) = duplex(4096);
        let server = tokio::spawn(async move {
            let mut connection = h2::server::handshake(theirs).await.expect("a preface");
            let (request, mut respond) = connection.accept().await.expect("a request").expect("a good one");
            let answer = http::Response::builder().status(204).header("x-instance", "a1").body(()).expect("a head");
            respond.send_response(answer, true).expect("it is waited for");
            // Until it has left.
            while connection.accept().await.is_some() {}
            request.uri().to_string()
        });
        let answer = ask(ours, "http://shop.test:80/healthz?deep=1").await.expect("an answer");
        assert_eq!((answer.status.as_u16(), &answer.headers["x-instance"] == "a1"), (204, true));
        assert_eq!(server.await.expect("no panic"), "http://shop.test:80/healthz?deep=1");

        let (ours, mut theirs) = duplex(4096);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("room");
        let seen =
            timeout(Duration::from_secs(10), ask(ours, "http://a/")).await.expect("at once").expect_err("no HTTP/2");
        assert!(matches!(seen, Seen::Wrong(_) | Seen::Silent(_)), "{seen:?}");
    }
}

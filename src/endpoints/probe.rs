//! One active check of one address, over its own connection, never the traffic's.
//!
//! The client is as small as the question: one request, the head of the answer, done. It follows no
//! redirects and reads no body. Whatever is not a response head within the deadline and the size cap is a failure.
//! It speaks what the traffic speaks.

use std::hash::{DefaultHasher, Hasher};
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::dial::{Dialled, Line, NoLine, dial, is_refused};
use super::health::Seen;
use super::{grpc, http2_probe};
use crate::config::model::tls::Alpn;
use crate::config::model::{HealthCheck, Protocol};

/// Bytes of a response head, interim responses included.
const HEAD_MAX: usize = 16 * 1024;

/// What a check saw, and who answered it by a hash of its name, if it was asked for that.
pub struct Asked {
    pub seen: Seen,
    pub instance: Option<u64>,
}

impl From<Seen> for Asked {
    fn from(seen: Seen) -> Asked {
        Asked { seen, instance: None }
    }
}

/// `authority` is the Host unless the check names one. `deadline` bounds all of it, connect included.
pub async fn probe(check: &HealthCheck, line: &Line, authority: &str, deadline: Duration) -> Asked {
    let asked = match check {
        HealthCheck::Tcp => timeout(deadline, connect(line, Alpn::Http11)).await.map(|connected| match connected {
            Ok(_) => Seen::Pass.into(),
            Err(silent) => silent.into(),
        }),
        HealthCheck::Grpc { service, host } => {
            let host = host.as_deref().unwrap_or(authority);
            timeout(deadline, grpc(line, host, service, deadline)).await.map(Asked::from)
        }
        HealthCheck::Http { path, host, status, instance } => {
            let host = host.as_deref().unwrap_or(authority);
            let answer = timeout(deadline, page(line, host, path, instance.as_ref())).await;
            answer.map(|answer| match answer {
                Err(seen) => seen.into(),
                Ok((answered, instance)) => judged(answered, status, instance),
            })
        }
    };
    asked.unwrap_or_else(|_| Seen::Silent(format!("no answer within {deadline:?}")).into())
}

async fn grpc(line: &Line, host: &str, service: &str, deadline: Duration) -> Seen {
    match connect(line, Alpn::H2).await {
        Ok(stream) => grpc::check(stream, host, service, deadline).await,
        Err(silent) => silent,
    }
}

/// The final status, and a hash of what `instance` says.
async fn page(line: &Line, host: &str, path: &str, instance: Option<&HeaderName>) -> Result<(u16, Option<u64>), Seen> {
    match line.protocol {
        Protocol::H1 => {
            let mut stream = connect(line, Alpn::Http11).await?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: switchback-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.map_err(|error| Seen::Silent(format!("write: {error}")))?;
            status_of(&mut stream, instance).await
        }
        Protocol::H2c | Protocol::H2 => {
            let stream = connect(line, Alpn::H2).await?;
            let scheme = if line.tls.is_some() { "https" } else { "http" };
            let answer = http2_probe::ask(stream, &format!("{scheme}://{host}{path}")).await?;
            let named = instance.and_then(|name| answer.headers.get(name));
            Ok((answer.status.as_u16(), named.map(|name| hash_of(name.as_bytes()))))
        }
    }
}

fn judged(status: u16, wanted: &[RangeInclusive<u16>], instance: Option<u64>) -> Asked {
    let passes = wanted.iter().any(|range| range.contains(&status));
    let seen = if passes { Seen::Pass } else { Seen::Wrong(format!("status {status}")) };
    Asked { seen, instance }
}

/// Never 0, which is nobody.
fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish().max(1)
}

async fn connect(line: &Line, alpn: Alpn) -> Result<Dialled, Seen> {
    dial(line, alpn).await.map_err(|why| match why {
        NoLine::Connect(error) if is_refused(&error) => Seen::Refused(format!("connect: {error}")),
        NoLine::Connect(error) => Seen::Silent(format!("connect: {error}")),
        NoLine::Tls(why) => Seen::Wrong(why),
    })
}

/// As [`page`], over HTTP/1.1; interim answers (100, 103) are passed over.
async fn status_of(stream: &mut Dialled, instance: Option<&HeaderName>) -> Result<(u16, Option<u64>), Seen> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            Ok(httparse::Status::Complete(length)) => match response.code {
                Some(status @ (101 | 200..)) => {
                    let named = |name: &&HeaderName| {
                        let mut fields = response.headers.iter();
                        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name.as_str()))?;
                        Some(hash_of(field.value))
                    };
                    return Ok((status, instance.as_ref().and_then(named)));
                }
                Some(100..) => {
                    head.drain(..length);
                    continue;
                }
                Some(_) | None => return Err(Seen::Wrong("not an HTTP answer: impossible status".into())),
            },
            Ok(httparse::Status::Partial) => {}
            Err(error) => return Err(Seen::Wrong(format!("not an HTTP answer: {error}"))),
        }
        if head.len() >= HEAD_MAX {
            return Err(Seen::Wrong(format!("response head above {HEAD_MAX} bytes")));
        }
        match stream.read_buf(&mut head).await {
            Ok(0) if head.is_empty() => return Err(Seen::Silent("closed without an answer".into())),
            Ok(0) => return Err(Seen::Wrong("closed in the middle of the response head".into())),
            Ok(_) => {}
            Err(error) => return Err(Seen::Silent(format!("read: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoints::At;

    fn plain(address: SocketAddr) -> Line {
        Line { at: At::Ip(address), protocol: Protocol::H1, announce: None, tls: None }
    }

    /// Accepts one connection, answers `answer`, closes (or, without `close`, stays open); returns what was asked.
    async fn origin(answer: &'static [u8], close: bool) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut asked).await.expect("readable") == 0 {
                    break;
                }
            }
            stream.write_all(answer).await.ok();
            if !close {
                // Until the other side has had enough.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.ok();
            }
            String::from_utf8(asked).expect("text")
        });
        (address, task)
    }

    fn check(host: Option<&str>) -> HealthCheck {
        HealthCheck::Http {
            path: "/healthz?deep=1".into(),
            host: host.map(String::from),
            status: vec![200..=204, 301..=301],
            instance: Some(HeaderName::from_static("x-instance")),
        }
    }

    async fn seen(answer: &'static [u8], close: bool) -> Seen {
        let (address, origin) = origin(answer, close).await;
        let seen = probe(&check(None), &plain(address), "shop.internal:3000", Duration::from_millis(300)).await.seen;
        origin.abort();
        seen
    }

    #[tokio::test]
    async fn the_status_decides() {
        assert_eq!(seen(b"HTTP/1.1 204 No Content\r\n\r\n", true).await, Seen::Pass);
        assert_eq!(seen(b"HTTP/1.0 301 Moved\r\nLocation: /\r\n\r\n", true).await, Seen::Pass);
        assert_eq!(seen(b"HTTP/1.1 200 OK\r\n\r\n", false).await, Seen::Pass, "no need to wait for the end");
        assert_eq!(seen(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", true).await, Seen::Pass);
        assert_eq!(seen(b"HTTP/1.1 503 No\r\n\r\n", true).await, Seen::Wrong("status 503".into()));
    }

    #[tokio::test]
    async fn anything_but_an_answer_is_a_failure() {
        assert!(
            matches!(seen(b"SSH-2.0-OpenSSH_9\r\n", true).await, Seen::Wrong(why) if why.starts_with("not an HTTP"))
        );
        assert!(matches!(seen(b"HTTP/1.1 200 OK\r\nX", true).await, Seen::Wrong(why) if why.contains("middle")));
        assert!(matches!(seen(b"", false).await, Seen::Silent(why) if why.starts_with("no answer within")));
        assert!(matches!(seen(b"", true).await, Seen::Silent(_)));
        static LONG: [u8; 20_000] = {
            let mut long = [b'a'; 20_000];
            let head = b"HTTP/1.1 200 OK\r\nX: ";
            let mut at = 0;
            while at < head.len() {
                long[at] = head[at];
                at += 1;
            }
            long
        };
        assert!(matches!(seen(&LONG, false).await, Seen::Wrong(why) if why.contains("above")));
    }

    #[tokio::test]
    async fn it_says_who_it_is_and_whom_it_wants() {
        for (host, wanted) in [(None, "shop.internal:3000"), (Some("health.test"), "health.test")] {
            let (address, origin) = origin(b"HTTP/1.1 200 OK\r\n\r\n", true).await;
            let seen = probe(&check(host), &plain(address), "shop.internal:3000", Duration::from_secs(5)).await.seen;
            assert_eq!(seen, Seen::Pass);
            let asked = origin.await.expect("no panic");
            assert!(asked.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains(&format!("\r\nHost: {wanted}\r\n")), "{asked}");
            assert!(asked.contains("\r\nUser-Agent: switchback-health\r\n"), "{asked}");
        }
    }

    #[tokio::test]
    async fn tcp_asks_for_a_connection_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let line = plain(address);
        let ask = || probe(&HealthCheck::Tcp, &line, "", Duration::from_secs(5));
        assert_eq!(ask().await.seen, Seen::Pass);
        drop(listener);
        assert!(matches!(ask().await.seen, Seen::Refused(why) if why.starts_with("connect:")));
    }

    #[tokio::test]
    async fn who_answers_is_known_by_a_header() {
        let mut seen = Vec::new();
        for answer in [
            &b"HTTP/1.1 200 OK\r\nX-Instance: a1\r\n\r\n"[..],
            b"HTTP/1.1 503 No\r\nx-instance: a1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx-instance: b2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let (address, origin) = origin(answer, true).await;
            seen.push(
                probe(&check(None), &plain(address), "shop.internal:3000", Duration::from_secs(5)).await.instance,
            );
            origin.await.expect("no panic");
        }
        assert!(seen[0].is_some() && seen[0] == seen[1] && seen[2].is_some() && seen[2] != seen[0], "{seen:?}");
        assert_eq!(seen[3], None);
    }
}

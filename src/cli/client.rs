//! Calls the admin API of one instance. Every wait has a deadline.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::args::InstanceArgs;
use super::failure::Failure;
use super::instance::{Instance, Target};
use crate::admin::Refusal;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A big configuration takes a while to check and compile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

pub struct Client {
    instance: Instance,
}

/// One call. `path` is encoded already.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
    pub content_type: Option<&'static str>,
    pub if_match: Option<u64>,
    pub last_event_id: Option<u64>,
    /// Send the token: the call changes something.
    pub changes: bool,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Call {
        Call { path: path.into(), ..Call::default() }
    }

    /// A change with a JSON body.
    pub fn change(path: impl Into<String>, body: &serde_json::Value, if_match: Option<u64>) -> Call {
        let (body, content_type) = (body.to_string().into(), Some("application/json"));
        Call { method: Method::POST, path: path.into(), body, content_type, if_match, changes: true, ..Call::default() }
    }
}

impl Client {
    pub fn find(args: &InstanceArgs) -> Result<Client, Failure> {
        Ok(Client { instance: Instance::find(args)? })
    }

    /// The answer as a value, or the refusal.
    pub async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        self.json_within(call, ANSWER_TIMEOUT).await
    }

    pub async fn json_within<T: DeserializeOwned>(&self, call: Call, within: Duration) -> Result<T, Failure> {
        let (status, bytes) = self.whole(call, within).await?;
        self.accepted(status, &bytes)?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(&error.to_string()))
    }

    pub async fn text(&self, call: Call) -> Result<String, Failure> {
        let (status, bytes) = self.whole(call, ANSWER_TIMEOUT).await?;
        self.accepted(status, &bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Status and body as they come.
    pub async fn whole(&self, call: Call, within: Duration) -> Result<(StatusCode, Bytes), Failure> {
        let answer = async {
            let (status, body) = self.open(call).await?;
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.strange(&format!("the answer broke off: {error}")))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(within, answer).await.unwrap_or_else(|_| Err(self.silent(within)))
    }

    /// An answer that goes on, such as events. Only the head has a deadline.
    pub async fn stream(&self, call: Call) -> Result<Incoming, Failure> {
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, self.open(call)).await;
        let (status, body) = opened.unwrap_or_else(|_| Err(self.silent(ANSWER_TIMEOUT)))?;
        if status.is_success() {
            return Ok(body);
        }
        let collected = tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let bytes = collected.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Err(self.accepted(status, &bytes).err().unwrap_or_else(|| self.strange("an empty answer")))
    }

    async fn open(&self, call: Call) -> Result<(StatusCode, Incoming), Failure> {
        let request = self.request(call)?;
        match &self.instance.target {
            Target::Tcp(address) => self.exchange(self.connect(TcpStream::connect(address)).await?, request).await,
            Target::Unix(path) => self.exchange(self.connect(UnixStream::connect(path)).await?, request).await,
        }
    }

    async fn connect<S>(&self, connecting: impl Future<Output = io::Result<S>>) -> Result<S, Failure> {
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable(&format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Incoming), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| self.unreachable(&format!("the connection broke: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the exchange: the request says `connection: close`.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response.status(), response.into_body()))
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, Failure> {
        let host = match &self.instance.target {
            Target::Tcp(address) => address.clone(),
            Target::Unix(_) => "localhost".into(),
        };
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .header("x-switchback-user", os_user());
        if let Some(kind) = call.content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(generation) = call.if_match {
            request = request.header(header::IF_MATCH, format!("\"{generation}\""));
        }
        if let Some(id) = call.last_event_id {
            request = request.header("last-event-id", id);
        }
        if call.changes {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.instance.token()?.secret()));
        }
        let request = request.body(Full::new(call.body));
        request.map_err(|error| Failure::Usage(format!("this cannot be asked: {error}")))
    }

    fn accepted(&self, status: StatusCode, bytes: &[u8]) -> Result<(), Failure> {
        if status.is_success() {
            return Ok(());
        }
        match serde_json::from_slice::<Refusal>(bytes) {
            Ok(refusal) => Err(Failure::Refused(Box::new(refusal))),
            Err(_) => Err(self.strange(&format!("it answered {status}"))),
        }
    }

    fn unreachable(&self, why: &str) -> Failure {
        let Instance { target, found_by, .. } = &self.instance;
        Failure::new(
            format!("no instance answers at {target} ({found_by}): {why}"),
            "is it running? start it with `switchback run`, or say where it is: --admin http://HOST:PORT or --admin unix:/path",
        )
    }

    fn silent(&self, within: Duration) -> Failure {
        let what = format!("the instance at {} did not answer within {} s", self.instance.target, within.as_secs());
        Failure::new(what, "a change may still happen: look at `switchback status` and its log")
    }

    fn strange(&self, why: &str) -> Failure {
        let what = format!("what answers at {} is no switchback of this version: {why}", self.instance.target);
        Failure::new(what, "check the address, and compare `switchback --version` with the version in `status --json`")
    }
}

/// For the audit. What the caller says of itself: the token is what counts.
fn os_user() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let safe = |user: &String| user.bytes().all(|byte| byte.is_ascii_graphic());
    named.filter(safe).unwrap_or_else(|| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").map_or("unknown".into(), |own| format!("uid-{}", own.uid()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(admin: &str) -> Client {
        Client::find(&InstanceArgs { admin: Some(admin.into()), ..InstanceArgs::default() }).unwrap()
    }

    fn said(failure: Failure) -> String {
        format!("{failure:?}")
    }

    #[tokio::test]
    async fn nobody_there_says_what_was_tried_and_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for admin in [format!("http://{free}"), "unix:/nonexistent/admin.sock".into()] {
            let failure = client(&admin).text(Call::get("/livez")).await.unwrap_err();
            let said = said(failure);
            assert!(said.contains(&admin) && said.contains("--admin") && said.contains("switchback run"), "{said}");
        }
    }

    #[tokio::test]
    async fn somebody_else_there_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        });
        let client = client(&address.to_string());
        let failure = client.json::<crate::control::api::Status>(Call::get("/api/v1/status")).await.unwrap_err();
        assert!(said(failure).contains("no switchback"));
    }

    #[tokio::test]
    async fn a_silent_instance_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&listener.local_addr().unwrap().to_string());
        let failure = client.whole(Call::get("/livez"), Duration::from_millis(50)).await.unwrap_err();
        assert!(said(failure).contains("did not answer"));
    }

    #[test]
    fn a_change_without_a_token_is_not_sent() {
        let call = Call::change("/api/v1/services/shop/hold", &serde_json::json!({}), None);
        let failure = client("127.0.0.1:1").request(call).unwrap_err();
        assert!(said(failure).contains("--token-file"));
    }
}

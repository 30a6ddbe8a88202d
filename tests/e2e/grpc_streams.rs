//! gRPC calls of all four kinds by a real client (tonic) at a real server: in clear and over TLS, each the same as
//! without the proxy, and counted by how it ended.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::harness::http2::{H2Client, request};
use crate::harness::http2_origin::{H2Fault, H2Origin};
use crate::harness::tls::{Authority, TlsKind};
use crate::harness::*;

type Texts = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;
type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// A message `fail` ends a call with a status; anything else is said back.
fn say(text: &str) -> Result<String, Status> {
    match text {
        "fail" => Err(Status::failed_precondition("as it was asked to: 100 %")),
        text => Ok(format!("re: {text}")),
    }
}

/// What every good answer has beside its messages.
fn marked<T>(message: T) -> Response<T> {
    let mut response = Response::new(message);
    response.metadata_mut().insert("x-marked", "yes".parse().expect("a value"));
    response
}

#[derive(Clone, Copy)]
struct Say;

impl UnaryService<String> for Say {
    type Response = String;
    type Future = Answering<String>;
    fn call(&mut self, request: Request<String>) -> Self::Future {
        Box::pin(async move { say(request.get_ref()).map(marked) })
    }
}

impl ServerStreamingService<String> for Say {
    type Response = String;
    type ResponseStream = Texts;
    type Future = Answering<Texts>;
    fn call(&mut self, request: Request<String>) -> Self::Future {
        let words: Vec<String> = request.get_ref().split(' ').map(str::to_string).collect();
        Box::pin(async move {
            let texts: Texts = Box::pin(stream::iter(words).map(|word| say(&word)));
            Ok(marked(texts))
        })
    }
}

impl ClientStreamingService<String> for Say {
    type Response = String;
    type Future = Answering<String>;
    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        Box::pin(async move {
            let mut texts = request.into_inner();
            let mut all = Vec::new();
            while let Some(text) = texts.message().await? {
                all.push(say(&text)?);
            }
            Ok(marked(all.join(", ")))
        })
    }
}

impl StreamingService<String> for Say {
    type Response = String;
    type ResponseStream = Texts;
    type Future = Answering<Texts>;
    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        Box::pin(async move {
            let texts: Texts = Box::pin(request.into_inner().map(|text| say(&text?)));
            Ok(marked(texts))
        })
    }
}

/// The deadlines that calls came with (`grpc-timeout`).
type Deadlines = Arc<Mutex<Vec<Option<String>>>>;

/// A server of `say.Say`, of all kinds.
async fn server(address: SocketAddr) -> Deadlines {
    let listener = TcpListener::bind(address).await.expect("the address is ours");
    let deadlines = Deadlines::default();
    let seen = deadlines.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            let answer = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let timeout = request.headers().get("grpc-timeout");
                seen.lock().unwrap().push(timeout.map(|it| it.to_str().unwrap().to_string()));
                async move {
                    let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
                    Ok::<_, std::convert::Infallible>(match request.uri().path() {
                        "/say.Say/One" => grpc.unary(Say, request).await,
                        "/say.Say/Many" => grpc.server_streaming(Say, request).await,
                        "/say.Say/All" => grpc.client_streaming(Say, request).await,
                        _ => grpc.streaming(Say, request).await,
                    })
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    deadlines
}

/// Where the server is reached, and how.
#[derive(Clone)]
enum Way {
    Clear(SocketAddr),
    Tls(SocketAddr),
}

async fn channel(way: Way) -> Channel {
    match way {
        Way::Clear(address) => {
            Endpoint::from_shared(format!("http://{address}")).expect("an address").connect().await.expect("it listens")
        }
        Way::Tls(address) => {
            let endpoint = Endpoint::from_static("http://shop.test");
            endpoint.connect_with_connector(OverTls(address)).await.expect("it listens")
        }
    }
}

#[derive(Clone)]
struct OverTls(SocketAddr);

impl Service<Uri> for OverTls {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            let tcp = TcpStream::connect(address).await?;
            let connector = TlsConnector::from(TlsKind::new().offering(&["h2"]).config);
            connector.connect(ServerName::try_from("shop.test").expect("a name"), tcp).await.map(TokioIo::new)
        })
    }
}

async fn ready(channel: &Channel) -> Grpc<Channel> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("it is connected");
    grpc
}

fn path(kind: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(kind)
}

fn codec() -> ProstCodec<String, String> {
    ProstCodec::default()
}

fn ended(status: &Status) -> String {
    format!("{:?} {}", status.code(), status.message())
}

/// The mark that comes with an answer, and what came with it.
fn told<T>(answer: Result<Response<T>, Status>, tell: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(response) => {
            let mark = response.metadata().get("x-marked").is_some();
            format!("marked {mark}: {}", tell(response.into_inner()))
        }
        Err(status) => ended(&status),
    }
}

/// To the end, with the status or the trailers that are there.
async fn rest(mut texts: Streaming<String>) -> String {
    let mut all = Vec::new();
    loop {
        match soon("a message", texts.message()).await {
            Ok(Some(text)) => all.push(text),
            Ok(None) => break all.push("OK".into()),
            Err(status) => break all.push(ended(&status)),
        }
    }
    all.join(" / ")
}

/// Calls of every kind, good and bad, as the client sees them.
async fn conversation(way: Way) -> Vec<String> {
    let channel = channel(way).await;
    let mut said = Vec::new();
    for text in ["hello", "fail"] {
        let answer = ready(&channel).await.unary(Request::new(text.to_string()), path("/say.Say/One"), codec()).await;
        said.push(told(answer, |text| text));
    }
    for text in ["one two three", "one fail three"] {
        let mut grpc = ready(&channel).await;
        let answer = grpc.server_streaming(Request::new(text.to_string()), path("/say.Say/Many"), codec()).await;
        said.push(match answer {
            Ok(response) => rest(response.into_inner()).await,
            Err(status) => ended(&status),
        });
    }
    for texts in [vec!["a", "b", "c"], vec!["a", "fail", "c"], vec![]] {
        let texts = stream::iter(texts.into_iter().map(str::to_string));
        let answer = ready(&channel).await.client_streaming(Request::new(texts), path("/say.Say/All"), codec()).await;
        said.push(told(answer, |text| text));
    }
    // One at a time: each message is sent once the answer to the one before it is here.
    for last in ["end", "fail"] {
        let (send, texts) = mpsc::channel::<String>(1);
        let texts = stream::unfold(texts, |mut texts| async { texts.recv().await.map(|text| (text, texts)) });
        let mut grpc = ready(&channel).await;
        let answer = grpc.streaming(Request::new(texts), path("/say.Say/Each"), codec()).await;
        let mut answers = answer.expect("the call begins").into_inner();
        for nth in 0..3 {
            send.send(format!("message {nth}")).await.expect("the call goes on");
            said.push(soon("its answer", answers.message()).await.unwrap().expect("not the end"));
        }
        send.send(last.into()).await.expect("the call goes on");
        drop(send);
        said.push(rest(answers).await);
    }
    // A megabyte in each direction.
    let large = "x".repeat(1_000_000);
    let answer = ready(&channel).await.unary(Request::new(large), path("/say.Say/One"), codec()).await;
    said.push(told(answer, |text| text.len().to_string()));
    said
}

fn service_at(address: SocketAddr, more: &str) -> String {
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{address}\"] }}\n    upstream: {{ protocol: h2c }}\n    active: v1\n"
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}

async fn counted(world: &World, status: &str) -> f64 {
    world.metric("switchback_grpc_calls_total", &[("service", "shop"), ("version", "v1"), ("status", status)]).await
}

#[tokio::test]
async fn calls_of_every_kind_are_the_same_in_clear_over_tls_and_without_the_proxy() {
    let mut world = World::new();
    Authority::new("ca").issue(&["shop.test"]).write(world.dir.path(), "shop");
    let (endpoint, secure) = (world.unused(), world.unused());
    let _deadlines = server(endpoint).await;
    let tls = format!(
        "listeners:\n  secure: {{ bind: \"{secure}\", tls: {{ certificates: [{{ cert_file: shop.pem, key_file: shop.key }}] }} }}\n"
    );
    let text = world.preamble().replace("listeners:\n", &tls) + &service_at(endpoint, "");
    world.start_text(&text).await;
    let direct = conversation(Way::Clear(endpoint)).await;
    assert_eq!(direct[0], "marked true: re: hello");
    assert_eq!(direct[1], "FailedPrecondition as it was asked to: 100 %");
    assert_eq!(direct[3], "re: one / FailedPrecondition as it was asked to: 100 %");
    assert_eq!(direct[4], "marked true: re: a, re: b, re: c");
    for (nth, way) in [Way::Clear(world.web()), Way::Tls(secure)].into_iter().enumerate() {
        assert_eq!(conversation(way).await, direct, "the way {nth}");
        // One bad call of each kind, and six good ones; the last may be counted a moment after its end.
        until("each is counted by how it ended", || async {
            let times = nth as f64 + 1.0;
            (counted(&world, "OK").await, counted(&world, "FAILED_PRECONDITION").await) == (6.0 * times, 4.0 * times)
        })
        .await;
        assert_eq!(world.metric("switchback_grpc_calls_total", &[]).await, 10.0 * (nth as f64 + 1.0));
    }
    assert_eq!(world.version_status("shop", "v1").await["in_flight"]["http"], 0);
}

#[tokio::test]
async fn a_client_that_leaves_a_call_ends_it_at_the_server_and_counts_as_cancelled() {
    let mut world = World::new();
    let silent = H2Origin::start("v1", world.unused()).await;
    silent.set(H2Fault::Hang);
    world.start(&service_at(silent.address, "")).await;
    let channel = channel(Way::Clear(world.web())).await;
    let mut grpc = ready(&channel).await;
    let call = tokio::spawn(async move {
        let asking = Request::new("hello".to_string());
        grpc.unary::<String, String, _>(asking, path("/say.Say/One"), codec()).await.is_ok()
    });
    until("the server has it", || async { silent.received().len() == 1 }).await;
    call.abort();
    until("the server is told", || async { silent.cancelled() == 1 }).await;
    until("it is counted", || async { counted(&world, "CANCELLED").await == 1.0 }).await;
    // The channel goes on. An answer that has begun can be left too.
    silent.set(H2Fault::None);
    let mut grpc = ready(&channel).await;
    let answer = grpc.server_streaming(Request::new("hello".to_string()), path("/open"), codec()).await;
    drop(answer.expect("it begins"));
    until("the server is told", || async { silent.cancelled() == 2 }).await;
    until("it is counted", || async { counted(&world, "CANCELLED").await == 2.0 }).await;
}

/// `grpc-timeout` is between the client and the server: it passes as it is, and the proxy's own deadline is another.
#[tokio::test]
async fn deadlines_of_calls_pass_and_those_of_the_proxy_end_calls_as_exceeded() {
    let mut world = World::new();
    let endpoint = world.unused();
    let deadlines = server(endpoint).await;
    world.start(&service_at(endpoint, "")).await;
    let channel = channel(Way::Clear(world.web())).await;
    let mut asking = Request::new("hello".to_string());
    asking.set_timeout(Duration::from_secs(20));
    let answer = ready(&channel).await.unary(asking, path("/say.Say/One"), codec()).await;
    assert_eq!(answer.unwrap().get_ref(), "re: hello");
    assert_eq!(*deadlines.lock().unwrap(), [Some("20000000u".to_string())]);

    let mut world = World::new();
    let silent = H2Origin::start("v1", world.unused()).await;
    silent.set(H2Fault::Hang);
    world.start(&service_at(silent.address, "timeouts: { connect: 1s, request: 600ms, idle: 10s }")).await;
    let client = H2Client::connect(world.web()).await;
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "1m")];
    let seen = client.send(request("POST", "/say.Say/One", &fields), b"\0\0\0\0\0").await;
    // After `timeouts.request`, not after the millisecond of the call.
    assert_eq!((seen.status, seen.field("grpc-status")), (200, Some("4")), "{seen:?}");
    assert!(seen.took >= Duration::from_millis(300), "{:?}", seen.took);
    until("the server is told", || async { silent.cancelled() == 1 }).await;
    assert_eq!(silent.last().headers.get("grpc-timeout").unwrap(), "1m");
    assert_eq!(counted(&world, "DEADLINE_EXCEEDED").await, 1.0);
    // A client that keeps its own deadline cancels the call when it is over.
    let call = client.begin(request("POST", "/say.Say/One", &fields), true).await.unwrap();
    until("it is there", || async { silent.received().len() == 2 }).await;
    call.cancel();
    until("the server is told", || async { silent.cancelled() == 2 }).await;
    until("it is counted", || async { counted(&world, "CANCELLED").await == 1.0 }).await;
}

//! Over real sockets, before a controller is attached.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    admin: Arc<Admin>,
    phase: watch::Sender<Phase>,
}

impl World {
    fn new(head_timeout: Duration) -> World {
        let (phase, seen) = watch::channel(Phase::Starting);
        let metrics: Metrics = Arc::new(String::new);
        let sockets = Arc::new(crate::sockets::Direct::new());
        let admin = Admin::with_head_timeout(tokio::runtime::Handle::current(), sockets, metrics, seen, head_timeout);
        admin.accept();
        World { admin, phase }
    }

    fn listening() -> World {
        let world = World::new(HEAD_TIMEOUT);
        world.listen(AdminBind::Tcp("127.0.0.1:0".parse().unwrap()));
        world
    }

    fn listen(&self, bind: AdminBind) {
        let prepared = self.admin.prepare(&AdminConfig { bind, insecure: false }).unwrap();
        self.admin.commit(prepared);
    }

    fn tcp(&self) -> SocketAddr {
        self.admin.address().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Sends `text` on a new connection and reads until it closes.
    async fn send(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.tcp()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    async fn ask(&self, line: &str, headers: &str) -> String {
        self.send(&format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")).await
    }
}

async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("the server answers and closes").unwrap();
    text
}

async fn unix(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n").await.unwrap();
    rest(&mut stream).await
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test]
async fn before_the_first_configuration_it_lives_but_is_not_ready() {
    let world = World::listening();
    assert_eq!(status(&world.ask("GET /livez", "").await), "200");
    let ready = world.ask("GET /readyz", "").await;
    assert_eq!((status(&ready), ready.ends_with("starting\n")), ("503", true), "{ready}");
    let head = world.ask("HEAD /livez", "").await;
    assert!(status(&head) == "200" && head.ends_with("\r\n\r\n"), "{head}");
    for line in ["GET /api/v1/status", "GET /metrics", "GET /api/v1/events", "POST /api/v1/services/shop/switch"] {
        let answer = world.ask(line, "").await;
        assert!(status(&answer) == "503" && answer.contains("application/problem+json"), "{line}: {answer}");
        assert!(answer.contains("retry-after: 1"), "{answer}");
    }
}

#[tokio::test]
async fn readiness_ends_with_the_signal() {
    let world = World::listening();
    for phase in [Phase::PreDrain, Phase::LameDuck, Phase::Ending] {
        world.phase.send_replace(phase);
        assert!(world.ask("GET /readyz", "").await.ends_with("draining\n"), "{phase:?}");
        assert_eq!(status(&world.ask("GET /livez", "").await), "200");
    }
}

#[tokio::test]
async fn foreign_hosts_and_sites_are_refused_on_every_path() {
    let world = World::listening();
    for line in ["GET /livez", "GET /api/v1/status", "POST /api/v1/switch", "GET /nowhere"] {
        let rebound = format!("{line} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        assert_eq!(status(&world.send(&rebound).await), "403", "{line}");
        assert_eq!(status(&world.ask(line, "origin: https://evil.example\r\n").await), "403", "{line}");
    }
    assert_eq!(status(&world.ask("GET /livez", "origin: http://localhost\r\n").await), "200");
    assert_eq!(status(&world.send("GET /livez HTTP/1.0\r\n\r\n").await), "400");
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_apart() {
    let world = World::listening();
    assert_eq!(status(&world.ask("GET /nowhere", "").await), "404");
    let answer = world.ask("DELETE /livez", "").await;
    assert!(status(&answer) == "405" && answer.contains("allow: GET, HEAD"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_fit_or_never_ends_costs_one_connection() {
    let world = World::new(Duration::from_millis(200));
    world.listen(AdminBind::Tcp("127.0.0.1:0".parse().unwrap()));
    let huge = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}", "x".repeat(200 * 1024));
    let mut stream = TcpStream::connect(world.tcp()).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(huge.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));

    for started in ["", "GET /livez HTTP/1.1\r\nhost: loc"] {
        let mut slow = TcpStream::connect(world.tcp()).await.unwrap();
        slow.write_all(started.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut answer)).await.expect("the deadline closes it");
    }
    assert_eq!(status(&world.send("garbage\r\n\r\n").await), "400");
    assert_eq!(status(&world.ask("GET /livez", "").await), "200", "others are served");
}

#[tokio::test]
async fn the_address_moves_without_losing_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
    let world = World::new(HEAD_TIMEOUT);
    world.listen(AdminBind::Unix(first.clone()));
    let mut running = UnixStream::connect(&first).await.unwrap();
    running.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    running.read_exact(&mut byte).await.unwrap();

    world.listen(AdminBind::Unix(first.clone()));
    assert_eq!(status(&unix(&first).await), "200", "the same address again changes nothing");
    world.listen(AdminBind::Unix(second.clone()));
    assert_eq!(world.admin.address().unwrap(), format!("unix:{}", second.display()));
    assert_eq!(status(&unix(&second).await), "200");
    assert!(rest(&mut running).await.ends_with("ok\n"), "the old connection was answered, then closed");
    let gone = async {
        while first.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the old socket is removed");
    assert!(second.exists());

    world.admin.close(PATIENCE).await;
    assert!(!second.exists() && world.admin.address().is_none());
}

#[tokio::test]
async fn a_refused_address_leaves_the_present_one_alone() {
    let world = World::listening();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = AdminBind::Tcp(taken.local_addr().unwrap());
    let error = world.admin.prepare(&AdminConfig { bind, insecure: false }).err().unwrap();
    assert!(error.contains("another process"), "{error}");
    assert_eq!(status(&world.ask("GET /livez", "").await), "200");
}

#[tokio::test]
async fn a_refusal_is_heard_by_a_client_that_still_sends() {
    let world = World::listening();
    let body = "x".repeat(8 * 1024 * 1024);
    let headers = format!("content-length: {}\r\n", body.len());
    let head = format!("POST /api/v1/config/apply HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    assert_eq!(status(&world.send(&format!("{head}{body}")).await), "503");
    let patient = head.replace("connection", "expect: 100-continue\r\nconnection");
    assert_eq!(status(&world.send(&patient).await), "503", "without the body having been sent");
}

//! The example service: one small HTTP server for each version, with faults that can be switched on.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub struct Origin {
    pub name: &'static str,
    pub address: SocketAddr,
    behaviour: Arc<Behaviour>,
    crashed: CancellationToken,
}

#[derive(Debug, Default)]
struct Behaviour {
    errors: AtomicBool,
    delay_ms: AtomicU64,
}

impl Origin {
    pub async fn start(name: &'static str) -> std::io::Result<Origin> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let behaviour = Arc::new(Behaviour::default());
        let crashed = CancellationToken::new();
        tokio::spawn(serve(name, listener, behaviour.clone(), crashed.clone()));
        Ok(Origin { name, address, behaviour, crashed })
    }

    /// Every third request is answered 500.
    pub fn begin_to_fail(&self) {
        self.behaviour.errors.store(true, Ordering::Relaxed);
    }

    pub fn become_slow(&self, by: Duration) {
        self.behaviour.delay_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Nobody listens any more, and every connection is gone.
    pub fn crash(&self) {
        self.crashed.cancel();
    }
}

async fn serve(name: &'static str, listener: TcpListener, behaviour: Arc<Behaviour>, crashed: CancellationToken) {
    let count = Arc::new(AtomicU64::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = crashed.cancelled() => return,
        };
        let Ok((socket, _)) = accepted else { continue };
        let (behaviour, count, crashed) = (behaviour.clone(), count.clone(), crashed.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(name, request, &behaviour, &count));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            // However the connection ends, the example has nothing to add.
            tokio::select! { _ = connection => {}, () = crashed.cancelled() => {} }
        });
    }
}

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
    behaviour: &Behaviour,
    count: &AtomicU64,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/healthz" {
        return Ok(Response::new(Full::from("ok\n")));
    }
    let delay = behaviour.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut response = Response::new(Full::from(format!("hello from {name}\n")));
    if behaviour.errors.load(Ordering::Relaxed) && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

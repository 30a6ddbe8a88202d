//! Copies of requests on their way to the canary: sent, read to the end, and thrown away.
//!
//! One task on the control runtime takes them from the queue, some exchanges run at once. A canary that hangs
//! fills these, then the queue, and then copies are dropped; nothing else waits. HTTP/1.1 over connections of their own
//! that are kept for a while. What is left out on purpose: comparing answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::mirror::{CopyTimeouts, Mirrored, count};
use crate::config::model::ProxyHeader;
use crate::config::model::tls::Alpn;
use crate::endpoints::dial::{Line, dial};

/// Copies that are being answered at once.
const RUNNING_MAX: usize = 64;
/// One that has waited for longer says nothing about now.
const STALE: Duration = Duration::from_secs(1);
/// How often kept connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// Until nobody can make copies any more.
pub async fn run(mut copies: mpsc::Receiver<Mirrored>) {
    let kept = Arc::new(Kept::default());
    let slots = Arc::new(Semaphore::new(RUNNING_MAX));
    let mut running = JoinSet::new();
    let mut sweeps = tokio::time::interval(SWEEP);
    loop {
        let copy = tokio::select! {
            copy = copies.recv(), if slots.available_permits() > 0 => copy,
            Some(_) = running.join_next() => continue,
            _ = sweeps.tick() => {
                kept.sweep();
                continue;
            }
        };
        let Some(copy) = copy else { return };
        if copy.made.elapsed() > STALE || copy.trial.is_withdrawn() {
            count(&copy.service, "dropped");
            continue;
        }
        let permit = slots.clone().try_acquire_owned().expect("only this task takes them, and one was free");
        let kept = kept.clone();
        running.spawn(async move {
            let status = timeout(copy.timeouts.exchange, kept.ask(&copy)).await.ok().flatten();
            let failed = status.is_none_or(|status| status >= 500);
            count(&copy.service, if failed { "failed" } else { "answered" });
            copy.trial.judge(|judge| judge.copied(status.unwrap_or(0)));
            drop(permit);
        });
    }
}

/// An endpoint's life, the definition of its TLS, and how connections begin.
type To = (u64, u32, Option<ProxyHeader>);

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

struct Idle {
    connection: Connection,
    until: Instant,
}

/// Connections that wait for their next request. Never more than can run at once, for each endpoint.
#[derive(Default)]
struct Kept {
    idle: Mutex<HashMap<To, Vec<Idle>>>,
}

impl Kept {
    /// The status of the answer, which was read to its end; `None` if that failed.
    async fn ask(&self, copy: &Mirrored) -> Option<u16> {
        let to = (copy.incarnation, copy.line.number(), copy.line.announce);
        if let Some(connection) = self.take(to)
            && let Some(status) = self.exchange(connection, copy.request.clone(), to, &copy.timeouts).await
        {
            return Some(status);
        }
        // A kept connection may have been closed meanwhile; a copy may be sent twice.
        let connection = connect(&copy.line, copy.timeouts.connect).await?;
        self.exchange(connection, copy.request.clone(), to, &copy.timeouts).await
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: Request<Empty<Bytes>>,
        to: To,
        timeouts: &CopyTimeouts,
    ) -> Option<u16> {
        let answer = connection.sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        // It may never end.
        if super::headers::is_event_stream(answer.headers()) {
            return Some(status);
        }
        let mut body = answer.into_body();
        while let Some(part) = body.frame().await {
            part.ok()?;
        }
        if connection.sender.ready().await.is_ok() {
            self.put(to, connection, timeouts.idle);
        }
        Some(status)
    }

    fn take(&self, to: To) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(&to)?;
        let now = Instant::now();
        waiting.retain(|idle| idle.is_fresh(now));
        waiting.pop().map(|idle| idle.connection)
    }

    fn put(&self, to: To, connection: Connection, idle_for: Duration) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry(to).or_default().push(Idle { connection, until: Instant::now() + idle_for });
    }

    fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.values_mut().for_each(|waiting| waiting.retain(|idle| idle.is_fresh(now)));
        idle.retain(|_, waiting| !waiting.is_empty());
    }
}

impl Idle {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.until && !self.connection.sender.is_closed()
    }
}

async fn connect(line: &Line, patience: Duration) -> Option<Connection> {
    let stream = timeout(patience, dial(line, Alpn::Http11)).await.ok()?.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    let task = tokio::spawn(async move {
        // What broke is seen by the request on it.
        let _ = connection.await;
    });
    Some(Connection { sender, _task: AbortOnDropHandle::new(task) })
}

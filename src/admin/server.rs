//! Accepts, guards, names and answers calls; moves to another address when the configuration does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::body::{self, Response};
use super::change::{self, Caller};
use super::events;
use super::guard::{self, Door};
use super::problem::Problem;
use super::query::Query;
use super::read;
use super::route::{self, Call, ChangeCall, Read};
use super::sockets::{self, Listening, Socket};
use super::stall::Stall;
use super::token::Token;
use super::upgrade::{self, Upgrades};
use crate::config::model::{Admin as AdminConfig, AdminBind};
use crate::control::api::Request as ChangeRequest;
use crate::control::ports::{AdminListener, Prepared};
use crate::control::{Handle, Phase};
use crate::sockets::Sockets;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Configurations being received at once: each may be [`body::CONFIG_BYTES_MAX`] long.
const CONFIGS_MAX: usize = 4;
/// For a request head, and between two calls on one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a write to make progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// For the rest of a body that was not asked for.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// For calls that run when their address closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a change to stand in the audit before it is answered.
const AUDIT_PATIENCE: Duration = Duration::from_secs(1);
/// Refused calls of strangers that are journaled per minute: the journal must not be theirs to fill.
const STRANGERS_AUDITED: u32 = 60;

/// Text of `/metrics`.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The admin API. It can listen before there is a controller, so that `/livez` answers and `/readyz`
/// says `starting`; [`Admin::attach`] gives it the rest.
pub struct Admin {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    sockets: Arc<dyn Sockets>,
    open: Mutex<Option<Open>>,
    /// Cancelled when calls are taken.
    go: CancellationToken,
}

struct Shared {
    metrics: Metrics,
    phase: watch::Receiver<Phase>,
    attached: OnceLock<Attached>,
    connections: Arc<Semaphore>,
    configs: Semaphore,
    subscribers: Arc<Semaphore>,
    /// Start of the present minute and the strangers audited in it.
    strangers: Mutex<(Instant, u32)>,
    tasks: TaskTracker,
    head_timeout: Duration,
}

struct Attached {
    handle: Handle,
    token: Token,
    /// `None` without a supervisor.
    upgrades: Option<Upgrades>,
}

/// The address in use.
struct Open {
    wanted: AdminBind,
    address: String,
    stop: CancellationToken,
}

/// What [`Admin::prepare`] hands to [`Admin::commit`].
enum Next {
    Same,
    Bound(AdminBind, Listening),
}

/// Where one connection comes from and arrives.
#[derive(Clone)]
struct Connection {
    door: Door,
    peer: String,
    from: String,
    /// Its address closes.
    stop: CancellationToken,
}

impl Admin {
    /// `runtime`: where calls are answered, the control runtime.
    pub fn new(
        runtime: tokio::runtime::Handle,
        sockets: Arc<dyn Sockets>,
        metrics: Metrics,
        phase: watch::Receiver<Phase>,
    ) -> Arc<Admin> {
        Admin::with_head_timeout(runtime, sockets, metrics, phase, HEAD_TIMEOUT)
    }

    fn with_head_timeout(
        runtime: tokio::runtime::Handle,
        sockets: Arc<dyn Sockets>,
        metrics: Metrics,
        phase: watch::Receiver<Phase>,
        head_timeout: Duration,
    ) -> Arc<Admin> {
        let shared = Shared {
            metrics,
            phase,
            attached: OnceLock::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            configs: Semaphore::new(CONFIGS_MAX),
            subscribers: Arc::new(Semaphore::new(events::SUBSCRIBERS_MAX)),
            strangers: Mutex::new((Instant::now(), 0)),
            tasks: TaskTracker::new(),
            head_timeout,
        };
        Arc::new(Admin {
            shared: Arc::new(shared),
            runtime,
            sockets,
            open: Mutex::new(None),
            go: CancellationToken::new(),
        })
    }

    /// Connections wait in the kernel's queue until this is said: another process may still answer them.
    pub fn accept(&self) {
        self.go.cancel();
    }

    /// From now on every call is answered. Only the first call counts.
    pub fn attach(&self, handle: Handle, token: Token, upgrades: Option<Upgrades>) {
        if self.shared.attached.set(Attached { handle, token, upgrades }).is_err() {
            warn!("the admin API was attached twice; the first controller stays");
        }
    }

    /// Another process answers from now on: nothing more is accepted here. Calls that run are finished.
    pub fn leave(&self) {
        if let Some(open) = self.open.lock().expect("no holder panics").take() {
            open.stop.cancel();
        }
    }

    /// [`Admin::leave`], and waits for running calls, at most `patience`. Event streams end, and a Unix socket's
    /// file is removed.
    pub async fn close(&self, patience: Duration) {
        self.leave();
        self.shared.tasks.close();
        if tokio::time::timeout(patience, self.shared.tasks.wait()).await.is_err() {
            warn!("admin calls were still running at the end");
        }
    }
}

impl AdminListener for Admin {
    fn prepare(&self, wanted: &AdminConfig) -> Result<Prepared, String> {
        let open = self.open.lock().expect("no holder panics");
        if open.as_ref().is_some_and(|open| open.wanted == wanted.bind) {
            return Ok(Box::new(Next::Same));
        }
        let _inside = self.runtime.enter();
        let listening = sockets::listen(&self.sockets, &wanted.bind)?;
        Ok(Box::new(Next::Bound(wanted.bind.clone(), listening)))
    }

    fn commit(&self, prepared: Prepared) {
        let next = prepared.downcast::<Next>().expect("control hands back what `prepare` made");
        let (wanted, listening) = match *next {
            Next::Same => return,
            Next::Bound(wanted, listening) => (wanted, listening),
        };
        let open = Open { wanted, address: listening.address(), stop: CancellationToken::new() };
        info!(address = open.address, "admin API listens");
        let (shared, stop) = (self.shared.clone(), open.stop.clone());
        self.shared.tasks.spawn_on(accept(shared, listening, stop, self.go.clone()), &self.runtime);
        let before = self.open.lock().expect("no holder panics").replace(open);
        if let Some(before) = before {
            info!(address = before.address, "admin API leaves its address");
            before.stop.cancel();
        }
    }

    fn address(&self) -> Option<String> {
        self.open.lock().expect("no holder panics").as_ref().map(|open| open.address.clone())
    }
}

async fn accept(shared: Arc<Shared>, listening: Listening, stop: CancellationToken, go: CancellationToken) {
    tokio::select! { () = stop.cancelled() => return, () = go.cancelled() => {} }
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => return,
            permit = shared.connections.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accept_one(&shared, &listening, &stop, permit) => accepted,
        };
        if let Err(error) = accepted {
            // Out of file descriptors, usually: trying again at once would only burn the processor.
            error!(%error, "the admin API cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn accept_one(
    shared: &Arc<Shared>,
    listening: &Listening,
    stop: &CancellationToken,
    permit: OwnedSemaphorePermit,
) -> std::io::Result<()> {
    match &listening.socket {
        Socket::Tcp(listener, bound) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let local = stream.local_addr().unwrap_or(*bound);
            shared.tasks.spawn(serve(shared.clone(), stream, Connection::tcp(local, peer, stop.clone()), permit));
        }
        Socket::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let from = match stream.peer_cred() {
                Ok(cred) => format!("unix uid {} pid {}", cred.uid(), cred.pid().unwrap_or(0)),
                Err(_) => "unix".into(),
            };
            let connection = Connection { door: Door::Unix, peer: "unix".into(), from, stop: stop.clone() };
            shared.tasks.spawn(serve(shared.clone(), stream, connection, permit));
        }
    }
    Ok(())
}

impl Connection {
    fn tcp(local: SocketAddr, peer: SocketAddr, stop: CancellationToken) -> Connection {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let door = Door::Tcp(SocketAddr::new(local.ip().to_canonical(), local.port()));
        Connection { door, peer: peer.ip().to_string(), from: peer.to_string(), stop }
    }
}

async fn serve<S>(shared: Arc<Shared>, stream: S, connection: Connection, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _permit = permit;
    let stop = connection.stop.clone();
    let head_timeout = shared.head_timeout;
    let service = service_fn(move |request| {
        let (shared, connection) = (shared.clone(), connection.clone());
        async move { Ok::<_, Infallible>(answer(&shared, &connection, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Stall::new(stream, WRITE_TIMEOUT)), service);
    let mut served = pin!(served);
    // How a client's connection ends is the client's business: its calls were answered and audited.
    tokio::select! {
        _ = served.as_mut() => return,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, served).await;
}

async fn answer(shared: &Arc<Shared>, connection: &Connection, request: Request<Incoming>) -> Response {
    let (head, mut body) = request.into_parts();
    let response = try_answer(shared, connection, &head, &mut body).await.unwrap_or_else(Problem::into_response);
    // An answer that comes before the whole body was read could be lost with the connection; but a client
    // that waits for `100 Continue` has not sent one.
    if !body.is_end_stream() && !head.headers.contains_key(http::header::EXPECT) {
        body::discard(body, body::CONFIG_BYTES_MAX, DISCARD_TIMEOUT).await;
    }
    response
}

async fn try_answer(
    shared: &Arc<Shared>,
    from: &Connection,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Response, Problem> {
    let found = route::find(&head.method, head.uri.path());
    let probe = found.as_ref().is_ok_and(Call::is_probe);
    let allowed = guard::host(&head.uri, &head.headers, &from.door, probe).and_then(|()| guard::origin(&head.headers));
    if let Ok(Call::Change(call)) = found {
        return change_state(shared, from, head, body, call, allowed).await;
    }
    allowed?;
    let call = found?;
    let mut query = Query::parse(head.uri.query()).map_err(Problem::bad_request)?;
    if let (false, Some(attached)) = (call.is_at_once(), shared.attached.get()) {
        attached.handle.settled().await;
    }
    let response = match call {
        Call::Read(Read::Livez) => read::livez(),
        Call::Read(Read::Readyz) => {
            // Copied first: asked for again while it is borrowed, and about to change, it would never be had.
            let phase = *shared.phase.borrow();
            read::readyz(phase, shared.attached.get().map(|attached| &attached.handle))
        }
        Call::Read(Read::Metrics) => {
            shared.attached()?;
            let metrics = shared.metrics.clone();
            // Thousands of series take a while: not on a thread that also answers a rollback.
            let text = tokio::task::spawn_blocking(move || metrics()).await;
            read::metrics(text.map_err(|_| internal("the metrics could not be rendered"))?)
        }
        Call::Read(Read::Status) => read::status(&shared.attached()?.handle),
        Call::Read(Read::Effective) => read::effective(&shared.attached()?.handle),
        Call::Read(Read::Generations) => read::generations(&shared.attached()?.handle),
        Call::Read(Read::Audit) => read::audit(&shared.attached()?.handle, &mut query)?,
        Call::Read(Read::Explain) => read::explain(&shared.attached()?.handle, &mut query)?,
        Call::Read(Read::Events) => {
            let handle = &shared.attached()?.handle;
            let Ok(permit) = shared.subscribers.clone().try_acquire_owned() else {
                let detail = format!("{} subscribers are connected, which is the limit", events::SUBSCRIBERS_MAX);
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many subscribers", detail));
            };
            events::stream(handle.events(), &head.headers, &mut query, permit, from.stop.clone())?
        }
        Call::Rollout { service } => read::rollout(&shared.attached()?.handle, &service, &mut query).await?,
        Call::Plan => {
            let handle = &shared.attached()?.handle;
            let text = shared.read_config(body).await?;
            read::plan(handle, &mut query, &text).await?
        }
        Call::Change(_) => unreachable!("answered above"),
    };
    query.finish().map_err(Problem::bad_request)?;
    Ok(response)
}

/// Every such call leaves an audit record, whatever becomes of it.
async fn change_state(
    shared: &Arc<Shared>,
    from: &Connection,
    head: &Parts,
    body: &mut Incoming,
    call: ChangeCall,
    allowed: Result<(), Problem>,
) -> Result<Response, Problem> {
    let attached = match (shared.attached(), &allowed) {
        (Ok(attached), _) => attached,
        (Err(starting), Ok(())) => return Err(starting),
        (Err(_), Err(_)) => return Err(allowed.expect_err("just matched")),
    };
    let caller = Caller::new(&head.headers, from.peer.clone(), from.from.clone());
    let asked = format!("{} {}", head.method, head.uri.path());
    if let Err(problem) = allowed.and_then(|()| guard::token(&head.headers, &attached.token)) {
        warn!(from = caller.from, call = asked, reason = problem.detail, "admin call refused");
        if shared.may_audit_stranger() {
            attached.handle.record_audit(change::audit(&caller, asked, &Err(problem.clone())));
        }
        return Err(problem);
    }
    if call == ChangeCall::Upgrade {
        return upgrade(shared, attached, &caller, head, body).await;
    }
    let request = match understand(shared, &caller, head, body, &call).await {
        Ok(request) => request,
        Err(problem) => {
            attached.handle.record_audit(change::audit(&caller, asked, &Err(problem.clone())));
            return Err(problem);
        }
    };
    // On its own, so that a client that goes away leaves neither half a change nor an unrecorded one.
    let handle = attached.handle.clone();
    let done = shared.tasks.spawn(async move {
        let action = change::describe(&request.change);
        let result = handle.request(request).await.map_err(Problem::from);
        handle.keep_audit(change::audit(&caller, action, &result), AUDIT_PATIENCE).await;
        result
    });
    let result = done.await.map_err(|_| internal("the change ended without an answer; look at `status`"))?;
    Ok(change::answer(result))
}

/// Audited by whichever process serves afterwards.
async fn upgrade(
    shared: &Shared,
    attached: &Attached,
    caller: &Caller,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Response, Problem> {
    Query::parse(head.uri.query()).map_err(Problem::bad_request)?.finish().map_err(Problem::bad_request)?;
    let binary = upgrade::binary(&head.headers, &small(body).await?)?;
    let Some(upgrades) = &attached.upgrades else {
        let problem = upgrade::nobody();
        attached.handle.record_audit(change::audit(caller, "upgrade".into(), &Err(problem.clone())));
        return Err(problem);
    };
    let asked = upgrades(binary, caller.author().0, caller.from.clone());
    // On its own, as every change.
    let outcome = shared.tasks.spawn(asked).await;
    upgrade::answer(outcome.map_err(|_| internal("the upgrade ended without an answer; look at `status`"))?)
}

async fn understand(
    shared: &Shared,
    caller: &Caller,
    head: &Parts,
    incoming: &mut Incoming,
    call: &ChangeCall,
) -> Result<ChangeRequest, Problem> {
    let if_match = change::if_match(&head.headers)?;
    let mut query = Query::parse(head.uri.query()).map_err(Problem::bad_request)?;
    let bytes = match call {
        ChangeCall::Apply => shared.read_config(incoming).await?,
        ChangeCall::Upgrade | ChangeCall::Reload | ChangeCall::Confirm | ChangeCall::Revert { .. } => {
            small(incoming).await?
        }
        ChangeCall::Switch { .. } | ChangeCall::Weights { .. } | ChangeCall::Rollback { .. } => small(incoming).await?,
        ChangeCall::Drain { .. } | ChangeCall::Hold { .. } | ChangeCall::Release { .. } => small(incoming).await?,
        ChangeCall::Clear { .. } | ChangeCall::Rollout { .. } | ChangeCall::Events { .. } => small(incoming).await?,
    };
    let change = change::parse(call, &mut query, &head.headers, &bytes)?;
    query.finish().map_err(Problem::bad_request)?;
    Ok(ChangeRequest { change, author: caller.author(), if_match })
}

async fn small(incoming: &mut Incoming) -> Result<Bytes, Problem> {
    body::read(incoming, body::BYTES_MAX, body::READ_TIMEOUT).await
}

impl Shared {
    fn attached(&self) -> Result<&Attached, Problem> {
        self.attached.get().ok_or_else(|| {
            let detail = "the first configuration is not live yet";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "The instance is starting", detail)
        })
    }

    async fn read_config(&self, incoming: &mut Incoming) -> Result<Bytes, Problem> {
        let turn = tokio::time::timeout(body::READ_TIMEOUT, self.configs.acquire()).await;
        let Ok(_turn) = turn else {
            let detail = "other configurations are still being received";
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many configurations at once",
                detail,
            ));
        };
        body::read(incoming, body::CONFIG_BYTES_MAX, body::READ_TIMEOUT).await
    }

    fn may_audit_stranger(&self) -> bool {
        let mut strangers = self.strangers.lock().expect("no holder panics");
        if strangers.0.elapsed() >= Duration::from_secs(60) {
            *strangers = (Instant::now(), 0);
        }
        strangers.1 += 1;
        strangers.1 <= STRANGERS_AUDITED
    }
}

fn internal(detail: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong inside", detail)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

//! A data thread: its runtime, its engine, its connections.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::app::App;
use super::connection::{self, Engine};
use super::dialer::Dialer;
use super::held;
use super::services::Services;
use super::ways::Ways;
use crate::control::Live;
use crate::net::accept::{self, Accepted};
use crate::net::listeners::OpenSet;
use crate::net::{Link, arrive, clock};
use crate::routing::Thread;
use crate::sessions::connections::Connection;

/// Idle endpoint connections that one data thread keeps, over all endpoints.
const IDLE_CONNECTIONS: usize = 1024;
/// A file of authorities in which there are none.
const NOBODY: &str = "/dev/null";

/// Starts a data thread. It ends when `stop` is cancelled.
pub fn spawn(
    thread: Thread,
    services: Arc<Services>,
    open: watch::Receiver<Arc<OpenSet>>,
    stop: CancellationToken,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("data-{}", thread.0)).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                error!(thread = thread.0, %error, "cannot start a data thread");
                return;
            }
        };
        let _left = Left { live: services.live.clone(), thread };
        // A reference of the thread's own: its requests count on it without touching another core's cache line.
        let services = Arc::new((*services).clone());
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(thread, services, open, stop));
        drop(local);
        drop(runtime);
    })
}

/// Says that the thread routes no more, also when it panics.
struct Left {
    live: Arc<Live>,
    thread: Thread,
}

impl Drop for Left {
    fn drop(&mut self) {
        held::forget();
        self.live.left(self.thread);
    }
}

async fn run(thread: Thread, services: Arc<Services>, open: watch::Receiver<Arc<OpenSet>>, stop: CancellationToken) {
    clock::set(services.live.nanos() / 1_000_000);
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        max_retries: 64, // the policy of the service decides; see `App::fail_to_connect`
        // The engine verifies nobody: it need not read whom the system trusts, twice for each thread.
        ca_file: Path::new(NOBODY).exists().then(|| NOBODY.into()),
        ..ServerConf::default()
    };
    let proxy = proxy(&Arc::new(conf), services.clone(), thread);
    let (_sender, never) = watch::channel(false);
    let engine = Rc::new(Engine { proxy, services: services.clone(), never });
    tokio::task::spawn_local(follow_generations(thread, services.clone()));
    tokio::task::spawn_local(follow_listeners(thread, services.clone(), open.clone()));
    tokio::task::spawn_local(sweep(thread, services));
    let serve = Rc::new(move |accepted| begin(thread, &engine, accepted));
    tokio::select! {
        () = accept::follow(open, serve) => {}
        () = stop.cancelled() => {}
    }
}

/// The engine, with connections to endpoints by the [`Dialer`] where it cannot make them.
fn proxy(conf: &Arc<ServerConf>, services: Arc<Services>, thread: Thread) -> Arc<HttpProxy<App, Dialer>> {
    let ways = Arc::<Ways>::default();
    let app = App { services, thread, ways: ways.clone() };
    // For connections of clients that the engine itself accepts: there are none.
    let on_custom: ProcessCustomSession<App, Dialer> = Arc::new(|_, _, _| Box::pin(async { None }));
    let mut service =
        ManuallyDrop::new(ProxyServiceBuilder::new(conf, app).custom(Dialer::new(ways), on_custom).build());
    let proxy = service.app_logic_mut().expect("it was built with it");
    // The engine only gives it away to its own server, which is not used.
    // SAFETY: it is moved out once; what is left of the service is neither touched again nor dropped.
    Arc::new(unsafe { std::ptr::read(proxy) })
}

fn begin(thread: Thread, engine: &Rc<Engine>, accepted: Accepted) {
    let Accepted { socket, client, listener, open } = accepted;
    let connection = Arc::new(Connection::new(thread, listener.name.clone()));
    let listed = engine.services.connections.add(connection.clone());
    let engine = engine.clone();
    tokio::task::spawn_local(async move {
        // What it needs is given back before the first request.
        let arriving = Box::pin(arrive(socket, client, &listener, &connection, &engine.services.stage));
        if let Some(arrived) = arriving.await {
            let link = Link::new(arrived, listener, connection);
            connection::serve(&engine, &link).await;
        }
        drop(listed);
        drop(open);
    });
}

/// Lets go of each snapshot as soon as it is live no longer, and says so.
async fn follow_generations(thread: Thread, services: Arc<Services>) {
    let mut published = services.live.subscribe();
    loop {
        published.borrow_and_update();
        let number = held::refresh(&services.live);
        services.live.saw(thread, number);
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the connections of a listener that it is gone: some have something to say to their clients.
async fn follow_listeners(thread: Thread, services: Arc<Services>, mut open: watch::Receiver<Arc<OpenSet>>) {
    let mut before = open.borrow_and_update().clone();
    while open.changed().await.is_ok() {
        let now = open.borrow_and_update().clone();
        for (name, gone) in before.iter() {
            if !now.get(name).is_some_and(|kept| Arc::ptr_eq(&kept.state, &gone.state)) {
                services.connections.wake_on(thread, name);
            }
        }
        before = now;
    }
}

/// Moves the thread's clock on and wakes what waits for a deadline.
async fn sweep(thread: Thread, services: Arc<Services>) {
    let mut tick = tokio::time::interval(clock::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = services.live.nanos() / 1_000_000;
        clock::set(now);
        services.connections.sweep(thread, now);
        if thread == Thread(0) {
            services.live.pointer().load().runtime.limits.sweep();
        }
    }
}

/// How many data threads there are if nothing else is said: one per core.
pub fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

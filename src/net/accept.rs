//! The accept loops of one data thread: one task for each open listener.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::listeners::{ListenerState, Open, OpenConnection, OpenSet};
use crate::config::model::Name;

/// A connection that was just accepted.
pub struct Accepted {
    pub socket: TcpStream,
    pub client: SocketAddr,
    pub listener: Arc<ListenerState>,
    pub open: OpenConnection,
}

/// What becomes of it; must return at once.
pub type Serve = Rc<dyn Fn(Accepted)>;

/// Accepts on whatever is open until the sender is gone.
pub async fn follow(mut open: watch::Receiver<Arc<OpenSet>>, serve: Serve) {
    let mut running: BTreeMap<Name, (Open, CancellationToken, JoinHandle<()>)> = BTreeMap::new();
    loop {
        let wanted = open.borrow_and_update().clone();
        let gone: Vec<Name> = running
            .iter()
            .filter(|(name, (have, ..))| !wanted.get(*name).is_some_and(|want| Arc::ptr_eq(&want.state, &have.state)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some((_, stop, task)) = running.remove(&name) {
                stop.cancel();
                // The task ends as soon as the kernel's queue is empty.
                let _ = task.await;
            }
        }
        for (name, open) in wanted.iter() {
            if running.contains_key(name) {
                continue;
            }
            let stop = CancellationToken::new();
            let task = tokio::task::spawn_local(accept(open.clone(), serve.clone(), stop.clone()));
            running.insert(name.clone(), (open.clone(), stop, task));
        }
        if open.changed().await.is_err() {
            return;
        }
    }
}

async fn accept(open: Open, serve: Serve, stop: CancellationToken) {
    let listener = match open.socket.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            error!(listener = %open.state.name, %error, "cannot accept on this thread");
            return;
        }
    };
    loop {
        let slot = tokio::select! {
            slot = room(&open.state) => slot,
            () = stop.cancelled() => break,
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, client)) => {
                    serve(Accepted { socket, client, listener: open.state.clone(), open: slot.accepted() });
                    // Other data threads wait for the same queue: let them have the next one.
                    tokio::task::yield_now().await;
                }
                Err(error) => pause_after(&open.state.name, &error).await,
            },
            () = stop.cancelled() => break,
        }
    }
    // What the kernel has completed is served: closing the socket now would reset it. The kernel is asked itself, because
    // what arrived a moment ago is news to the runtime.
    while let Some(slot) = open.state.try_open() {
        let Ok((socket, client)) = open.socket.accept() else { return };
        if let Ok(socket) = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)) {
            serve(Accepted { socket, client, listener: open.state.clone(), open: slot.accepted() });
        }
    }
}

async fn room(state: &Arc<ListenerState>) -> OpenConnection {
    loop {
        if let Some(slot) = state.try_open() {
            return slot;
        }
        state.closed_one().await;
    }
}

/// A client that gave up in the queue is nothing; no descriptors left is worth a word and a pause.
async fn pause_after(listener: &str, error: &io::Error) {
    let harmless = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !harmless {
        warn!(listener, %error, "cannot accept; trying again in 100 ms (is the limit of open files too low?)");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

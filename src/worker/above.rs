//! The supervisor, as its worker sees it: where sockets come from, and who gives orders.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::admin::Upgrades;
use crate::handover::{Asked, Channel, FORMAT, FromWorker, Outcome, Received, ToWorker};
use crate::sockets::{Key, Sockets};

/// A supervisor that does not answer for this long is none.
const ANSWER: Duration = Duration::from_secs(10);

/// What the supervisor says, in order. Ends when it is gone.
pub type Orders = mpsc::UnboundedReceiver<Order>;

#[derive(Debug)]
pub struct Order {
    pub message: ToWorker,
    pub fd: Option<OwnedFd>,
}

#[derive(Debug)]
pub struct Above {
    channel: Channel,
    /// Questions that wait for their socket.
    asked: Mutex<HashMap<u64, SyncSender<io::Result<OwnedFd>>>>,
    next: AtomicU64,
    turn: Mutex<Option<oneshot::Receiver<Option<OwnedFd>>>>,
    /// Operators who wait for the outcome of an upgrade.
    upgrades: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Above {
    /// Takes the channel that this process was started with, and says hello.
    pub fn connect(fd: RawFd) -> io::Result<(Arc<Above>, Orders)> {
        let channel = Channel::inherited(fd)?;
        channel.send(&FromWorker::Hello { format: FORMAT, version: env!("CARGO_PKG_VERSION").into() }, None)?;
        let (given, turn) = oneshot::channel();
        let (orders, receiver) = mpsc::unbounded_channel();
        let above = Arc::new(Above {
            channel,
            asked: Mutex::default(),
            next: AtomicU64::new(1),
            turn: Mutex::new(Some(turn)),
            upgrades: Mutex::default(),
        });
        let listening = above.clone();
        let spawned = std::thread::Builder::new().name("supervisor".into());
        spawned.spawn(move || listening.listen(&orders, given))?;
        Ok((above, receiver))
    }

    /// Resolves when the state is this process's, with what the one before it gave.
    pub async fn turn(&self) -> Option<OwnedFd> {
        let turn = self.turn.lock().expect("no holder panics").take()?;
        self.say(&FromWorker::WantState);
        // An error: the supervisor is gone, and this process is about to notice.
        turn.await.ok().flatten()
    }

    pub fn say(&self, message: &FromWorker) {
        self.say_with(message, None);
    }

    pub fn say_with(&self, message: &FromWorker, fd: Option<&OwnedFd>) {
        if let Err(error) = self.channel.send(message, fd.map(|fd| fd.as_fd())) {
            warn!(%error, "the supervisor cannot be told anything");
        }
    }

    /// For the admin API: how an operator asks for an upgrade.
    pub fn upgrades(self: Arc<Above>) -> Upgrades {
        Arc::new(move |binary, author, from| {
            let above = self.clone();
            Box::pin(async move {
                let ask = above.number();
                let (answer, outcome) = oneshot::channel();
                above.upgrades.lock().expect("no holder panics").insert(ask, answer);
                above.say(&FromWorker::Upgrade(Asked { ask, binary, author, from }));
                outcome.await.ok()
            })
        })
    }

    /// Whoever asked here hears of it.
    pub fn answered(&self, outcome: Outcome) {
        // The numbers of another worker are not ours; only one upgrade runs at a time.
        let Some(asked) = &outcome.asked else { return };
        let waiting = self.upgrades.lock().expect("no holder panics").remove(&asked.ask);
        if let Some(waiting) = waiting {
            // Who asked may have gone.
            let _ = waiting.send(outcome);
        }
    }

    /// The number of a question.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn listen(&self, orders: &mpsc::UnboundedSender<Order>, given: oneshot::Sender<Option<OwnedFd>>) {
        let mut given = Some(given);
        loop {
            match self.channel.receive::<ToWorker>() {
                Ok(Received::Message(ToWorker::Bound { ask }, fd)) => {
                    self.answer(ask, fd.ok_or_else(|| io::Error::other("the supervisor sent no socket")));
                }
                Ok(Received::Message(ToWorker::NotBound { ask, error }, _)) => self.answer(ask, Err(error.into())),
                Ok(Received::Message(ToWorker::State, fd)) => {
                    if let Some(given) = given.take() {
                        // Nobody waits any more if the start has failed.
                        let _ = given.send(fd);
                    }
                }
                Ok(Received::Message(message, fd)) => {
                    if orders.send(Order { message, fd }).is_err() {
                        return;
                    }
                }
                Ok(Received::Unknown(error)) => warn!(error, "the supervisor said something unknown here: ignored"),
                Ok(Received::Nothing) => {}
                Ok(Received::Closed) => break,
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                    error!("a socket could not be received: the limit of open files is reached");
                    self.refuse_all(libc::EMFILE);
                }
                Err(error) => {
                    error!(%error, "the channel to the supervisor is broken");
                    break;
                }
            }
        }
        self.refuse_all(libc::EPIPE);
    }

    fn answer(&self, ask: u64, answer: io::Result<OwnedFd>) {
        let asked = self.asked.lock().expect("no holder panics").remove(&ask);
        if let Some(asked) = asked {
            // Who asked may have given up.
            let _ = asked.send(answer);
        }
    }

    fn refuse_all(&self, errno: i32) {
        for (_, asked) in self.asked.lock().expect("no holder panics").drain() {
            let _ = asked.send(Err(io::Error::from_raw_os_error(errno)));
        }
    }
}

impl Sockets for Above {
    fn bind(&self, key: &Key) -> io::Result<OwnedFd> {
        let ask = self.number();
        let (answer, wait) = sync_channel(1);
        self.asked.lock().expect("no holder panics").insert(ask, answer);
        if let Err(error) = self.channel.send(&FromWorker::Bind { ask, key: key.clone() }, None) {
            self.asked.lock().expect("no holder panics").remove(&ask);
            return Err(error);
        }
        wait.recv_timeout(ANSWER).unwrap_or_else(|_| {
            self.asked.lock().expect("no holder panics").remove(&ask);
            Err(io::Error::new(io::ErrorKind::TimedOut, "the supervisor does not answer"))
        })
    }

    fn release(&self, key: &Key) {
        // A supervisor that is gone has let go of it.
        let _ = self.channel.send(&FromWorker::Release { key: key.clone() }, None);
    }
}

//! Notices that the configuration on disk is another one, once it is complete.
//!
//! Events are only hints: what counts is the content. Every directory on the way to the file is watched,
//! through every symbolic link, so that an editor's rename, a ConfigMap's `..data` swap or a replaced
//! directory are seen; a poll finds what no event told (network file systems, a lost queue).
//!
//! **Never half of a file.** A prefix of a YAML file is often valid YAML, so validity proves nothing. A
//! file counts as complete when it has been the same for [`Settings::quiet`] *and* nobody is known to be
//! writing it: a write event without the close that belongs to it means that a writer is still at work,
//! however long it pauses, up to [`Settings::open_for`]. Without events (poll only, remote file systems)
//! only the quiet time protects; then it is doubled.
//!
//! **One file mounted by itself** into a container shows the old inode for ever once the file is replaced
//! by a rename. That cannot be helped from inside, so it is said ([`Seen::Unwatchable`]).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::eyes::Eyes;
use super::trail::{Trail, stale_mount};
use crate::config::Problems;
use crate::config::load::{self, Source};

/// How the file is watched. The defaults are those of every start; tests are less patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// From the first hint to the first look.
    pub debounce: Duration,
    /// How long the content must have been the same.
    pub quiet: Duration,
    /// How long a writer that does not close the file is waited for.
    pub open_for: Duration,
    /// Between two looks without a hint.
    pub poll: Duration,
    /// Whether to ask the system for events at all.
    pub events: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            debounce: Duration::from_millis(100),
            quiet: Duration::from_millis(300),
            open_for: Duration::from_secs(10),
            poll: Duration::from_secs(5),
            events: true,
        }
    }
}

/// What the watcher has to say. Each content is said once.
#[derive(Debug)]
pub enum Seen {
    Settled {
        sources: Vec<Source>,
        hash: String,
    },
    /// Missing, unreadable, not text.
    Unreadable(Problems),
    /// Edits may not be seen, and why; `None`: they are again.
    Unwatchable(Option<String>),
}

/// The hash of the content that was dealt with last, whoever read it: an edit that an operator had read at once and that
/// was undone before it came to rest is an edit.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Mutex<Option<String>>>);

impl Known {
    pub fn is(&self, hash: &str) -> bool {
        self.0.lock().expect("no holder panics").as_deref() == Some(hash)
    }

    pub fn set(&self, hash: &str) {
        *self.0.lock().expect("no holder panics") = Some(hash.into());
    }
}

/// Watches until `stop` or until nobody listens.
pub async fn watch(path: PathBuf, settings: Settings, known: Known, seen: mpsc::Sender<Seen>, stop: CancellationToken) {
    let state = State { known, unreadable: false, unwatchable: None };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = Watch::new(path, settings, seen, state).run() => {}
    }
}

struct State {
    known: Known,
    unreadable: bool,
    unwatchable: Option<String>,
}

struct Watch {
    path: PathBuf,
    settings: Settings,
    seen: mpsc::Sender<Seen>,
    state: State,
    eyes: Eyes,
}

/// What a look at the disk found.
type Look = Result<(Vec<Source>, String), Problems>;

/// Nobody listens any more.
struct Over;

impl Watch {
    fn new(path: PathBuf, settings: Settings, seen: mpsc::Sender<Seen>, state: State) -> Watch {
        let eyes = Eyes::new(settings.events, settings.open_for, "the configuration");
        Watch { path, settings, seen, state, eyes }
    }

    async fn run(mut self) -> Result<(), Over> {
        self.arm();
        loop {
            self.say_whether_watchable().await?;
            // The first look follows at once: the file may have changed while the process started.
            self.settle().await?;
            let hinted = self.eyes.hinted(self.settings.poll).await;
            if hinted {
                tokio::time::sleep(self.settings.debounce).await;
            }
            self.arm();
        }
    }

    /// Looks until the content is what is in use already, or has come to rest.
    async fn settle(&mut self) -> Result<(), Over> {
        let quiet = if self.eyes.have_events() { self.settings.quiet } else { self.settings.quiet * 2 };
        let mut last: Option<(Option<String>, Instant)> = None;
        loop {
            let look = self.look().await;
            let hash = look.as_ref().ok().map(|(_, hash)| hash.clone());
            let is_news = match &hash {
                Some(hash) => self.state.unreadable || !self.state.known.is(hash),
                None => !self.state.unreadable,
            };
            if !is_news && !self.eyes.is_being_written() {
                return Ok(());
            }
            let now = Instant::now();
            let since = match &last {
                Some((before, since)) if *before == hash => *since,
                Some(_) | None => now,
            };
            last = Some((hash, since));
            if is_news && now - since >= quiet && !self.eyes.is_being_written() {
                return self.report(look).await;
            }
            tokio::time::sleep(self.settings.debounce).await;
            self.arm();
        }
    }

    async fn report(&mut self, look: Look) -> Result<(), Over> {
        let seen = match look {
            Ok((sources, hash)) => {
                self.state.known.set(&hash);
                self.state.unreadable = false;
                Seen::Settled { sources, hash }
            }
            Err(problems) => {
                self.state.unreadable = true;
                Seen::Unreadable(problems)
            }
        };
        self.seen.send(seen).await.map_err(|_| Over)
    }

    async fn look(&self) -> Look {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let sources = load::read(&path)?;
            let hash = load::hash(&sources);
            Ok((sources, hash))
        });
        read.await
            .unwrap_or_else(|error| Err(super::candidate::problem(format!("the file could not be read: {error}"))))
    }

    async fn say_whether_watchable(&mut self) -> Result<(), Over> {
        let why = stale_mount(&self.path);
        if why == self.state.unwatchable {
            return Ok(());
        }
        self.state.unwatchable = why.clone();
        self.seen.send(Seen::Unwatchable(why)).await.map_err(|_| Over)
    }

    /// Watches the directories that are on the way to the file now.
    fn arm(&mut self) {
        self.eyes.arm(Trail::of(&self.path));
    }
}

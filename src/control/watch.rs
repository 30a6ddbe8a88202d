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

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

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

/// Watches until `stop` or until nobody listens. `known` is the hash of the content that is in use.
pub async fn watch(
    path: PathBuf,
    settings: Settings,
    known: Option<String>,
    seen: mpsc::Sender<Seen>,
    stop: CancellationToken,
) {
    let state = State { known, unreadable: false, unwatchable: None };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = Watch::new(path, settings, seen, state).run() => {}
    }
}

struct State {
    known: Option<String>,
    unreadable: bool,
    unwatchable: Option<String>,
}

struct Watch {
    path: PathBuf,
    settings: Settings,
    seen: mpsc::Sender<Seen>,
    state: State,
    hints: Arc<Hints>,
    watcher: Option<RecommendedWatcher>,
    armed: HashMap<PathBuf, Option<(u64, u64)>>,
}

/// Filled by the thread that receives events; bounded by what the trail names.
#[derive(Default)]
struct Hints {
    wake: Notify,
    about: Mutex<About>,
}

#[derive(Default)]
struct About {
    trail: Trail,
    /// Files that were written to and not closed since, with the last write.
    writing: HashMap<PathBuf, Instant>,
}

/// What a look at the disk found.
type Look = Result<(Vec<Source>, String), Problems>;

/// Nobody listens any more.
struct Over;

impl Watch {
    fn new(path: PathBuf, settings: Settings, seen: mpsc::Sender<Seen>, state: State) -> Watch {
        let hints = Arc::new(Hints::default());
        let told = hints.clone();
        let watcher = settings.events.then(|| notify::recommended_watcher(move |event| told.note(event)));
        let watcher = watcher.and_then(|watcher| match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "no file events on this system: the configuration is only polled");
                None
            }
        });
        Watch { path, settings, seen, state, hints, watcher, armed: HashMap::new() }
    }

    async fn run(mut self) -> Result<(), Over> {
        self.arm();
        loop {
            self.say_whether_watchable().await?;
            // The first look follows at once: the file may have changed while the process started.
            self.settle().await?;
            let hinted = tokio::time::timeout(self.settings.poll, self.hints.wake.notified()).await.is_ok();
            if hinted {
                tokio::time::sleep(self.settings.debounce).await;
            }
            self.arm();
        }
    }

    /// Looks until the content is what is in use already, or has come to rest.
    async fn settle(&mut self) -> Result<(), Over> {
        let quiet = if self.watcher.is_some() { self.settings.quiet } else { self.settings.quiet * 2 };
        let mut last: Option<(Option<String>, Instant)> = None;
        loop {
            let look = self.look().await;
            let hash = look.as_ref().ok().map(|(_, hash)| hash.clone());
            let is_news = match &hash {
                Some(hash) => self.state.unreadable || self.state.known.as_ref() != Some(hash),
                None => !self.state.unreadable,
            };
            if !is_news && !self.is_being_written() {
                return Ok(());
            }
            let now = Instant::now();
            let since = match &last {
                Some((before, since)) if *before == hash => *since,
                Some(_) | None => now,
            };
            last = Some((hash, since));
            if is_news && now - since >= quiet && !self.is_being_written() {
                return self.report(look).await;
            }
            tokio::time::sleep(self.settings.debounce).await;
            self.arm();
        }
    }

    async fn report(&mut self, look: Look) -> Result<(), Over> {
        let seen = match look {
            Ok((sources, hash)) => {
                self.state.known = Some(hash.clone());
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

    fn is_being_written(&self) -> bool {
        let about = self.hints.about.lock().expect("no holder panics");
        about.writing.values().any(|last| last.elapsed() < self.settings.open_for)
    }

    /// Watches the directories that are on the way to the file now.
    fn arm(&mut self) {
        let trail = Trail::of(&self.path);
        if let Some(watcher) = &mut self.watcher {
            let gone: Vec<PathBuf> = self
                .armed
                .iter()
                .filter(|(dir, inode)| trail.dirs.get(*dir) != Some(*inode))
                .map(|(dir, _)| dir.clone())
                .collect();
            for dir in gone {
                // It may be gone already, and its watch with it.
                let _ = watcher.unwatch(&dir);
                self.armed.remove(&dir);
            }
            for (dir, inode) in &trail.dirs {
                if self.armed.contains_key(dir) {
                    continue;
                }
                match watcher.watch(dir, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.armed.insert(dir.clone(), *inode);
                    }
                    Err(error) => tracing::debug!(dir = %dir.display(), %error, "not watched; the poll will see it"),
                }
            }
        }
        let mut about = self.hints.about.lock().expect("no holder panics");
        about.writing.retain(|path, last| path.exists() && last.elapsed() < self.settings.open_for);
        about.trail = trail;
    }
}

impl Hints {
    /// Called for every event in a watched directory: it must be quick and must not be fooled by our own
    /// reading, which opens and closes the files too.
    fn note(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else { return self.wake.notify_one() };
        if event.need_rescan() {
            return self.wake.notify_one();
        }
        let mut about = self.about.lock().expect("no holder panics");
        let mut hint = false;
        for path in &event.paths {
            if !about.trail.concerns(path) {
                continue;
            }
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    about.writing.remove(path);
                    hint = true;
                }
                EventKind::Access(_) => {}
                EventKind::Modify(ModifyKind::Data(_)) => {
                    // A link that is reported as written to has no close that will follow.
                    if about.trail.files.contains(path) {
                        about.writing.insert(path.clone(), Instant::now());
                    }
                    hint = true;
                }
                EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    about.writing.remove(path);
                    hint = true;
                }
                EventKind::Modify(_) | EventKind::Any | EventKind::Other => hint = true,
            }
        }
        if hint {
            self.wake.notify_one();
        }
    }
}

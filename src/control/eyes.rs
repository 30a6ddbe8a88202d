//! Hints from the system that files on a [`Trail`] may have changed, and whether somebody is writing them.
//!
//! Events are only hints: whoever has eyes looks at the content afterwards, and now and then without a hint.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::trail::Trail;

pub(crate) struct Eyes {
    hints: Arc<Hints>,
    watcher: Option<RecommendedWatcher>,
    armed: HashMap<PathBuf, Option<(u64, u64)>>,
    /// How long a writer that does not close a file is waited for.
    open_for: Duration,
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

impl Eyes {
    /// `events`: whether to ask the system at all. `what` is watched, for the log.
    pub fn new(events: bool, open_for: Duration, what: &'static str) -> Eyes {
        let hints = Arc::new(Hints::default());
        let told = hints.clone();
        let watcher = events.then(|| notify::recommended_watcher(move |event| told.note(event)));
        let watcher = watcher.and_then(|watcher| match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, what, "no file events on this system: files are only polled");
                None
            }
        });
        Eyes { hints, watcher, armed: HashMap::new(), open_for }
    }

    pub fn have_events(&self) -> bool {
        self.watcher.is_some()
    }

    /// Until there is a hint, but no longer than `most`. Whether there was one.
    pub async fn hinted(&self, most: Duration) -> bool {
        tokio::time::timeout(most, self.hints.wake.notified()).await.is_ok()
    }

    pub fn is_being_written(&self) -> bool {
        let about = self.hints.about.lock().expect("no holder panics");
        about.writing.values().any(|last| last.elapsed() < self.open_for)
    }

    /// Watches the directories of this trail from now on.
    pub fn arm(&mut self, trail: Trail) {
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
        about.writing.retain(|path, last| path.exists() && last.elapsed() < self.open_for);
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

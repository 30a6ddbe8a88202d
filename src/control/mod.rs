//! The only writer. Everything that can change what is live comes here as one event, is decided in one
//! place, published as one generation, and journaled.
//!
//! ```text
//! watch ──┐                                        ┌─ endpoints.reconcile, drains.published
//! Handle ─┴ candidate ─ Event ─▶ run ─ decide ─ publish ─┼─ history, journal (after the flip)
//!           (parse, compile,      overlay    (one store) └─ receipt, once every data thread has let go
//!            expect)
//! ```

pub mod api;
mod ask;
mod boot;
mod candidate;
#[cfg(test)]
mod control_tests;
mod controller;
pub mod decide;
mod effective;
mod event;
mod expect;
mod explain;
pub(crate) mod eyes;
pub mod handle;
mod history;
pub mod live;
pub mod overlay;
pub mod phase;
mod plan;
pub mod ports;
mod publish;
mod report;
pub mod rollouts;
pub mod run;
mod shared;
mod status;
#[cfg(test)]
mod testing;
pub(crate) mod trail;
pub mod watch;
#[cfg(test)]
mod watch_tests;

use std::path::PathBuf;

pub use boot::{Options, StartError, start};
pub use handle::{Handle, Question};
pub use live::{Live, Snapshot};
pub use phase::Phase;

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or a directory of files; watched.
    File(PathBuf),
    /// A text that never changes by itself (demo, tests).
    Text { name: String, text: String },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Text { name, .. } => f.write_str(name),
        }
    }
}

//! All that can happen to what is live. One queue, one reader: `run.rs`.

use tokio::sync::{mpsc, oneshot};

use super::api::{Author, Change, Receipt, Refused};
use super::candidate::Candidate;
use crate::config::Problems;
use crate::journal::Record;

pub(crate) type Reply = oneshot::Sender<Result<Receipt, Refused>>;

/// When somebody asked, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trigger {
    /// Clock of `Live::nanos`.
    pub nanos: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

#[derive(Debug)]
pub(crate) enum Event {
    /// An operator wants something.
    Asked { ask: Ask, author: Author, if_match: Option<u64>, trigger: Trigger, reply: Reply },
    /// The watcher read the file.
    File { seen: FileSeen, trigger: Trigger },
    /// The file can (no longer) be seen to change, and why.
    Unwatchable(Option<String>),
    /// Another process is to take over: decide nothing from now on, and let go of the state. `urgent` hears of
    /// what cannot wait.
    Freeze { done: oneshot::Sender<Result<(), String>>, urgent: mpsc::UnboundedSender<String> },
    /// It does not take over.
    Thaw { done: oneshot::Sender<()> },
    /// It has taken over.
    Retire { done: oneshot::Sender<()> },
    /// The process ends: answer what was asked, write the journal, stop.
    Stop { done: oneshot::Sender<()> },
}

#[derive(Debug)]
pub(crate) enum Ask {
    /// Splits and holds: everything that needs no text to be compiled.
    Splits(Change),
    /// The file, read because an operator said so.
    File(FileSeen),
    Apply {
        candidate: Candidate,
        confirm_ms: Option<u64>,
    },
    Revert {
        record: Record,
        candidate: Candidate,
    },
}

/// The file as it was read, and what became of it so far.
#[derive(Debug)]
pub(crate) struct FileSeen {
    /// Counts readings; an older reading that arrives late is dropped.
    pub sequence: u64,
    /// `None` if it could not be read.
    pub hash: Option<String>,
    pub candidate: Result<Candidate, Problems>,
}

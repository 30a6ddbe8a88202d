//! The words. A worker may be older or newer than its supervisor: who does not know a word says so and goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sockets::Key;

/// Changes when a word changes its meaning. A worker of another format is not started.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// The first word.
    Hello {
        format: u32,
        version: String,
    },
    /// Wants the listening socket of an address.
    Bind {
        ask: u64,
        key: Key,
    },
    /// Does not need it any more.
    Release {
        key: Key,
    },
    /// The configuration is read; from here on it needs the state, which only one worker can have.
    WantState,
    /// It can serve.
    Ready,
    /// How long a successor may take. Said before `Ready`, and again when the configuration changes it.
    ReadyTimeout {
        ms: u64,
    },
    /// Answer to `Freeze`: it decides nothing any more and has let go of the state. With what only it knows.
    Frozen,
    /// Answer to `Freeze`: not while this lasts.
    NotNow {
        why: String,
    },
    /// It is frozen and must decide something now.
    Reclaim {
        why: String,
    },
    /// An operator asks for an upgrade.
    Upgrade(Asked),
    /// What SIGHUP asked for is done, well or not.
    Reloaded,
    Pong {
        nth: u64,
    },
    /// What it has counted, for whoever counts on. It will count no more.
    Counted,
    /// The services that are held now: for those that retire and have requests that wait.
    Held {
        services: BTreeSet<String>,
    },
    /// What it still has, while it retires.
    Left(Left),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// Answer to `Hello`. `restarted`: how the worker before it ended, if it was not to end.
    Welcome {
        restarted: Option<String>,
        tally: Tally,
    },
    /// With the socket.
    Bound {
        ask: u64,
    },
    NotBound {
        ask: u64,
        error: BindError,
    },
    /// Answer to `WantState`: it is yours. With what the one before knew, if it could be asked.
    State,
    /// Decide nothing, let go of the state, keep serving.
    Freeze,
    /// Take the state back: there is no successor.
    Thaw {
        why: String,
    },
    /// The successor serves: finish what runs, and end.
    Retire,
    /// How an upgrade ended; to whoever serves now, and to the worker that asked for it.
    Upgraded(Outcome),
    Ping {
        nth: u64,
    },
    /// What a retired worker has counted.
    Counted,
    /// What is held where it is decided.
    Held {
        services: BTreeSet<String>,
    },
    /// What an earlier worker still has.
    Left {
        pid: u32,
        left: Left,
    },
    /// An earlier worker has ended.
    Gone {
        pid: u32,
    },
}

/// What a worker that retires still has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Exchanges by kind; those that wait for a release are among them.
    pub in_flight: BTreeMap<String, u64>,
    /// Client connections, idle ones too.
    pub connections: u64,
}

/// Who asks for an upgrade, and to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The worker's own number for it.
    pub ask: u64,
    /// `None`: the file that the supervisor was started from, as it is now.
    pub binary: Option<PathBuf>,
    pub author: String,
    /// Where the call came from.
    pub from: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeResult {
    /// The new process serves.
    Ok,
    /// Nothing was tried.
    Refused,
    /// The new process did not come up; the one before serves.
    Failed,
}

impl UpgradeResult {
    pub const ALL: [UpgradeResult; 3] = [UpgradeResult::Ok, UpgradeResult::Refused, UpgradeResult::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            UpgradeResult::Ok => "ok",
            UpgradeResult::Refused => "refused",
            UpgradeResult::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub result: UpgradeResult,
    /// For people.
    pub why: String,
    /// Of the worker that serves now.
    pub pid: u32,
    pub version: String,
    pub took_ms: u64,
    /// Who asked, if it was not a signal.
    pub asked: Option<Asked>,
    pub tally: Tally,
}

/// What has happened since the supervisor began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Workers that ended although they were not to.
    pub restarts: u64,
    pub upgrades: BTreeMap<UpgradeResult, u64>,
}

/// An error of the operating system that has to cross to another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindError {
    errno: Option<i32>,
    in_use: bool,
    text: String,
}

impl From<&io::Error> for BindError {
    fn from(error: &io::Error) -> BindError {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        BindError { errno: error.raw_os_error(), in_use, text: error.to_string() }
    }
}

impl From<BindError> for io::Error {
    fn from(error: BindError) -> io::Error {
        match error.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None if error.in_use => io::Error::new(io::ErrorKind::AddrInUse, error.text),
            None => io::Error::other(error.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_the_same_on_the_other_side() {
        let system = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let ours = io::Error::new(io::ErrorKind::AddrInUse, "another process answers there");
        for error in [system, ours] {
            let crossed = io::Error::from(BindError::from(&error));
            assert_eq!((crossed.kind(), crossed.to_string()), (error.kind(), error.to_string()));
        }
    }
}

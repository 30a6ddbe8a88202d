//! What happens, and what is to be done about it. Knows no process, no socket and no clock: they are handed in.
//!
//! ```text
//!            Ready                  Retire                exits
//! Starting ─────────▶ Serving ─────────────────▶ Retired ───────▶ (gone)
//!    │ exits             │ exits
//!    ▼                   ▼
//! first ever: the end    again, on the same sockets: at once, then more and more slowly
//!
//! upgrade:  Starting ─ WantState ─▶ the serving one is frozen ─ Frozen ─▶ State ─ Ready ─▶ Serving
//!              └──────────── exits, too late, not now, reclaimed ──────────────▶ killed; the other one thaws
//! ```
//!
//! At most one worker decides at any moment: the successor gets the state only when the one before has let go of
//! it, and that one gets it back only when the successor's process is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::handover::{Asked, FORMAT, Outcome, Tally, ToWorker, UpgradeResult};

/// Unique for as long as the supervisor runs.
pub type Worker = u64;

/// Time since the supervisor began.
pub type Moment = Duration;

/// A worker that lived that long is no part of a row of crashes.
const LONG_LIFE: Duration = Duration::from_secs(30);
/// The second crash in a row waits for this long, each further one twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Workers that still finish what they had. Each is a whole process.
const RETIRED_MAX: usize = 16;
/// Until the worker says what the configuration says.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a process is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// That of the worker that was ready last; at the start, our own.
    KnownGood,
    /// That of an upgrade.
    New(Option<std::path::PathBuf>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Begin,
    Hello {
        from: Worker,
        format: u32,
        version: String,
        pid: u32,
    },
    WantState {
        from: Worker,
    },
    Ready {
        from: Worker,
    },
    ReadyTimeout {
        from: Worker,
        timeout: Duration,
    },
    Frozen {
        from: Worker,
    },
    NotNow {
        from: Worker,
        why: String,
    },
    Reclaim {
        from: Worker,
        why: String,
    },
    /// `None`: a signal.
    Upgrade {
        from: Option<(Worker, Asked)>,
    },
    Exited {
        who: Worker,
        how: Exit,
    },
    /// It could not even be started.
    NotStarted {
        who: Worker,
        why: String,
    },
    /// SIGTERM and its like.
    Stop {
        signal: i32,
    },
    Time,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Start {
        who: Worker,
        program: Program,
    },
    Send {
        to: Worker,
        message: ToWorker,
    },
    /// `State`, with what the frozen worker gave, if it gave anything.
    GiveState {
        to: Worker,
    },
    Signal {
        who: Worker,
        signal: i32,
    },
    Kill {
        who: Worker,
    },
    /// Its program is the known good one from now on, and sockets that no worker uses are closed.
    Settle {
        who: Worker,
    },
    /// What the frozen worker gave is of no use any more.
    ForgetState,
    /// Become the program that serves now.
    Replace,
    /// For whoever looks after the process.
    Notify(Notice),
    Say {
        level: Level,
        text: String,
    },
    End {
        code: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Ready,
    Reloading,
    Stopping,
    Status(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Starting,
    Serving,
    Retired,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    stage: Stage,
    since: Moment,
    pid: u32,
    version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    No,
    Asked,
    Yes,
}

#[derive(Debug, Clone)]
struct Upgrade {
    next: Worker,
    from: Option<(Worker, Asked)>,
    since: Moment,
    until: Moment,
    frozen: Frozen,
    /// It is being killed, and this is why.
    abandoned: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    workers: BTreeMap<Worker, Known>,
    /// Starting or serving.
    current: Option<Worker>,
    /// Never saved: nothing is replaced while one runs.
    #[serde(skip)]
    upgrade: Option<Upgrade>,
    next: Worker,
    ever_ready: bool,
    restart_at: Option<Moment>,
    crashes_in_row: u32,
    last_crash: Option<String>,
    stopping: bool,
    code: u8,
    ready_timeout: Duration,
    pub tally: Tally,
}

impl Default for Machine {
    fn default() -> Machine {
        let tally = Tally { restarts: 0, upgrades: UpgradeResult::ALL.map(|result| (result, 0)).into() };
        Machine {
            workers: BTreeMap::new(),
            current: None,
            upgrade: None,
            next: 1,
            ever_ready: false,
            restart_at: None,
            crashes_in_row: 0,
            last_crash: None,
            stopping: false,
            code: 0,
            ready_timeout: READY_TIMEOUT,
            tally,
        }
    }
}

impl Machine {
    /// Who serves, or is about to.
    pub fn current(&self) -> Option<Worker> {
        self.current
    }

    pub fn is_serving(&self) -> bool {
        self.current.is_some_and(|current| self.is(current, Stage::Serving))
    }

    pub fn is_retired(&self, who: Worker) -> bool {
        self.is(who, Stage::Retired)
    }

    /// Before its first word, a signal would end it on the spot.
    pub fn can_hear(&self, who: Worker) -> bool {
        self.workers.get(&who).is_some_and(|known| known.pid != 0)
    }

    /// Nothing is under way that another supervisor would not know of.
    pub fn is_quiet(&self) -> bool {
        self.is_serving() && self.upgrade.is_none() && !self.stopping
    }

    /// When to look again although nothing happens.
    pub fn wake_at(&self) -> Option<Moment> {
        let upgrade = self.upgrade.as_ref().filter(|upgrade| upgrade.abandoned.is_none()).map(|upgrade| upgrade.until);
        [self.restart_at, upgrade, self.late_at()].into_iter().flatten().min()
    }

    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Begin => self.start(Program::KnownGood, now, &mut out),
            Event::Hello { from, format, version, pid } => self.hello(from, format, version, pid, &mut out),
            Event::WantState { from } => self.wants_state(from, &mut out),
            Event::Ready { from } => self.ready(from, now, &mut out),
            Event::ReadyTimeout { from, timeout } if self.current == Some(from) => self.ready_timeout = timeout,
            Event::ReadyTimeout { .. } => {}
            Event::Frozen { from } => self.frozen(from, &mut out),
            Event::NotNow { from, why } | Event::Reclaim { from, why } if self.current == Some(from) => {
                self.abandon(why, &mut out);
            }
            Event::NotNow { .. } | Event::Reclaim { .. } => {}
            Event::Upgrade { from } => self.upgrade(from, now, &mut out),
            Event::Exited { who, how } => self.gone(who, Some(how), how.to_string(), now, &mut out),
            Event::NotStarted { who, why } => self.gone(who, None, why, now, &mut out),
            Event::Stop { signal } => self.stop(signal, &mut out),
            Event::Time => self.time(now, &mut out),
        }
        out
    }

    fn is(&self, who: Worker, stage: Stage) -> bool {
        self.workers.get(&who).is_some_and(|known| known.stage == stage)
    }

    fn add(&mut self, program: Program, now: Moment, out: &mut Vec<Action>) -> Worker {
        let who = self.next;
        self.next += 1;
        self.workers.insert(who, Known { stage: Stage::Starting, since: now, pid: 0, version: String::new() });
        out.push(Action::Start { who, program });
        who
    }

    fn start(&mut self, program: Program, now: Moment, out: &mut Vec<Action>) {
        self.restart_at = None;
        let who = self.add(program, now, out);
        self.current = Some(who);
    }

    fn hello(&mut self, from: Worker, format: u32, version: String, pid: u32, out: &mut Vec<Action>) {
        let Some(known) = self.workers.get_mut(&from) else { return };
        known.version = version;
        known.pid = pid;
        if format != FORMAT {
            let why = format!("it speaks format {format} of the private protocol, and this supervisor format {FORMAT}");
            match &self.upgrade {
                Some(upgrade) if upgrade.next == from => self.abandon(why, out),
                Some(_) | None => {
                    out.push(say(Level::Error, format!("the worker cannot be used: {why}")));
                    out.push(Action::Kill { who: from });
                }
            }
            return;
        }
        let restarted = self.last_crash.clone().filter(|_| self.current == Some(from));
        out.push(Action::Send { to: from, message: ToWorker::Welcome { restarted, tally: self.tally.clone() } });
    }

    fn wants_state(&mut self, from: Worker, out: &mut Vec<Action>) {
        let serving = self.current.filter(|current| self.is(*current, Stage::Serving));
        match (&mut self.upgrade, serving) {
            (Some(upgrade), Some(serving)) if upgrade.next == from => {
                if upgrade.frozen == Frozen::No && upgrade.abandoned.is_none() {
                    upgrade.frozen = Frozen::Asked;
                    out.push(Action::Send { to: serving, message: ToWorker::Freeze });
                }
            }
            (_, _) if self.current == Some(from) => out.push(Action::GiveState { to: from }),
            (_, _) => {}
        }
    }

    fn frozen(&mut self, from: Worker, out: &mut Vec<Action>) {
        match &mut self.upgrade {
            Some(upgrade) if upgrade.frozen == Frozen::Asked && self.current == Some(from) => {
                upgrade.frozen = Frozen::Yes;
                if upgrade.abandoned.is_none() {
                    out.push(Action::GiveState { to: upgrade.next });
                }
            }
            // Called off in the meantime: what thaws it is on its way.
            Some(_) | None => out.push(Action::ForgetState),
        }
    }

    fn ready(&mut self, from: Worker, now: Moment, out: &mut Vec<Action>) {
        if self.stopping || !self.is(from, Stage::Starting) {
            return;
        }
        let takes_over =
            |upgrade: &Upgrade| upgrade.next == from && upgrade.frozen == Frozen::Yes && upgrade.abandoned.is_none();
        let is_next = self.upgrade.as_ref().is_some_and(takes_over);
        if !is_next && self.current != Some(from) {
            return;
        }
        self.ever_ready = true;
        if let Some(known) = self.workers.get_mut(&from) {
            known.stage = Stage::Serving;
            known.since = now;
        }
        let before = self.current.replace(from).filter(|before| *before != from);
        out.push(Action::Settle { who: from });
        if let (true, Some(upgrade)) = (is_next, self.upgrade.take()) {
            self.crashes_in_row = 0;
            if let Some(before) = before {
                if let Some(known) = self.workers.get_mut(&before) {
                    known.stage = Stage::Retired;
                    known.since = now;
                }
                // Hears of it before it retires: it may have to answer who asked.
                let took = now.saturating_sub(upgrade.since);
                let why = format!("the new process serves after {} ms", took.as_millis());
                self.tell(UpgradeResult::Ok, why, upgrade.since, upgrade.from, Some(before), now, out);
                out.push(Action::Send { to: before, message: ToWorker::Retire });
                out.push(Action::ForgetState);
                out.push(Action::Replace);
            }
        }
        let version = self.workers.get(&from).map(|known| known.version.clone()).unwrap_or_default();
        out.push(Action::Notify(Notice::Ready));
        out.push(Action::Notify(Notice::Status(format!("serving, version {version}"))));
    }

    fn upgrade(&mut self, from: Option<(Worker, Asked)>, now: Moment, out: &mut Vec<Action>) {
        let retired = self.workers.values().filter(|known| known.stage == Stage::Retired).count();
        let refusal = if self.stopping {
            Some("the process is ending".to_string())
        } else if self.upgrade.is_some() {
            Some("another upgrade is under way: one at a time".into())
        } else if !self.is_serving() {
            Some("no worker serves yet: ask again when it is ready".into())
        } else if retired >= RETIRED_MAX {
            Some(format!("{retired} earlier workers still finish what they had: wait for one of them to end"))
        } else {
            None
        };
        if let Some(why) = refusal {
            self.tell(UpgradeResult::Refused, why, now, from, None, now, out);
            return;
        }
        let program = Program::New(from.as_ref().and_then(|(_, asked)| asked.binary.clone()));
        out.push(Action::Notify(Notice::Reloading));
        out.push(Action::Notify(Notice::Status("upgrading: a new worker starts beside the one that serves".into())));
        let next = self.add(program, now, out);
        let until = now + self.ready_timeout;
        self.upgrade = Some(Upgrade { next, from, since: now, until, frozen: Frozen::No, abandoned: None });
    }

    /// The new process is killed; what follows waits until it is gone.
    fn abandon(&mut self, why: String, out: &mut Vec<Action>) {
        if let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.abandoned.is_none()) {
            upgrade.abandoned = Some(why);
            out.push(Action::Kill { who: upgrade.next });
        }
    }

    fn gone(&mut self, who: Worker, how: Option<Exit>, why: String, now: Moment, out: &mut Vec<Action>) {
        let Some(known) = self.workers.remove(&who) else { return };
        let pid = known.pid;
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.next == who) {
            let why = match how {
                Some(how) => format!("the new process ended before it was ready: {how}"),
                None => why.clone(),
            };
            self.failed(why, now, out);
        }
        if self.stopping {
            self.finished(who, &known, how, &why, out);
            return;
        }
        if known.stage == Stage::Retired {
            let level = if how == Some(Exit::Code(0)) { Level::Info } else { Level::Warn };
            let what = match how {
                Some(Exit::Code(3)) => "a retired worker has ended; work was cut at its deadline".to_string(),
                Some(_) | None => format!("a retired worker has ended: {why}"),
            };
            out.push(say(level, format!("{what} (pid {pid})")));
            return;
        }
        if self.current != Some(who) {
            return;
        }
        self.current = None;
        match how {
            // Only a worker that was told to end says 0 or 3: somebody told it and not us.
            Some(Exit::Code(code @ (0 | 3))) if known.stage == Stage::Serving => {
                out.push(say(Level::Info, format!("the worker was told to end (pid {pid}): ending with it")));
                self.stopping = true;
                self.code = code as u8;
                out.push(Action::Notify(Notice::Stopping));
                self.stop_all(libc::SIGTERM, out);
                self.end_if_alone(out);
            }
            _ if !self.ever_ready => {
                // It has said why, on the same stderr.
                match how {
                    Some(Exit::Code(code)) => self.code = u8::try_from(code).unwrap_or(1),
                    Some(Exit::Signal(_)) | None => {
                        out.push(say(Level::Error, format!("the worker could not start: {why}")));
                        self.code = 1;
                    }
                }
                self.stopping = true;
                self.end_if_alone(out);
            }
            _ => self.crashed(&known, why, now, out),
        }
    }

    fn crashed(&mut self, known: &Known, why: String, now: Moment, out: &mut Vec<Action>) {
        self.abandon("the worker that served has ended".into(), out);
        if now.saturating_sub(known.since) >= LONG_LIFE && known.stage == Stage::Serving {
            self.crashes_in_row = 0;
        }
        let wait = match self.crashes_in_row {
            0 => Duration::ZERO,
            n => FIRST_WAIT.saturating_mul(1 << (n - 1).min(10)).min(LONGEST_WAIT),
        };
        self.crashes_in_row += 1;
        self.tally.restarts += 1;
        let text =
            format!("the worker ended: {why} (pid {}); the next one starts in {wait:?}, sockets stay open", known.pid);
        out.push(say(Level::Error, text.clone()));
        out.push(Action::Notify(Notice::Status(text)));
        self.last_crash = Some(why);
        match wait.is_zero() {
            true => self.start(Program::KnownGood, now, out),
            false => self.restart_at = Some(now + wait),
        }
    }

    /// The process that was to take over is gone.
    fn failed(&mut self, why: String, now: Moment, out: &mut Vec<Action>) {
        let Some(upgrade) = self.upgrade.take() else { return };
        let why = upgrade.abandoned.unwrap_or(why);
        if self.stopping {
            return;
        }
        if let (Some(current), Frozen::Asked | Frozen::Yes) = (self.current, upgrade.frozen) {
            out.push(Action::Send { to: current, message: ToWorker::Thaw { why: why.clone() } });
        }
        out.push(Action::ForgetState);
        self.tell(UpgradeResult::Failed, why, upgrade.since, upgrade.from, None, now, out);
        out.push(Action::Notify(Notice::Ready));
        out.push(Action::Notify(Notice::Status("serving; the last upgrade failed".into())));
    }

    #[allow(clippy::too_many_arguments)] // all that an outcome says, from one place
    fn tell(
        &mut self,
        result: UpgradeResult,
        why: String,
        since: Moment,
        from: Option<(Worker, Asked)>,
        also: Option<Worker>,
        now: Moment,
        out: &mut Vec<Action>,
    ) {
        *self.tally.upgrades.entry(result).or_default() += 1;
        let level = match result {
            UpgradeResult::Ok => Level::Info,
            UpgradeResult::Refused | UpgradeResult::Failed => Level::Error,
        };
        let word = result.as_str();
        out.push(say(level, format!("upgrade {word}: {why}")));
        let current = self.current;
        let known = current.and_then(|current| self.workers.get(&current));
        let outcome = Outcome {
            result,
            why,
            pid: known.map_or(0, |known| known.pid),
            version: known.map(|known| known.version.clone()).unwrap_or_default(),
            took_ms: u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX),
            asked: from.as_ref().map(|(_, asked)| asked.clone()),
            tally: self.tally.clone(),
        };
        let mut to: Vec<Worker> = [current, from.map(|(asker, _)| asker), also].into_iter().flatten().collect();
        to.sort_unstable();
        to.dedup();
        for to in to.into_iter().filter(|to| self.workers.contains_key(to)) {
            out.push(Action::Send { to, message: ToWorker::Upgraded(outcome.clone()) });
        }
    }

    fn stop(&mut self, signal: i32, out: &mut Vec<Action>) {
        if !self.stopping {
            self.stopping = true;
            out.push(Action::Notify(Notice::Stopping));
            if self.current.is_none() {
                // It had crashed and was not up again: that is no clean end.
                self.code = 1;
            }
        }
        if let Some(upgrade) = self.upgrade.take() {
            // First, so that the state is free when the one that serves writes its last.
            out.push(Action::Kill { who: upgrade.next });
        }
        self.restart_at = None;
        self.stop_all(signal, out);
        self.end_if_alone(out);
    }

    fn stop_all(&self, signal: i32, out: &mut Vec<Action>) {
        out.extend(self.workers.keys().map(|who| Action::Signal { who: *who, signal }));
    }

    /// One of those that are waited for at the end.
    fn finished(&mut self, who: Worker, known: &Known, how: Option<Exit>, why: &str, out: &mut Vec<Action>) {
        match how {
            // It had not even begun.
            Some(Exit::Signal(_)) if known.pid == 0 => {}
            Some(Exit::Code(code)) => self.code = self.code.max(u8::try_from(code).unwrap_or(1)),
            Some(Exit::Signal(_)) | None if self.current == Some(who) => {
                out.push(say(Level::Error, format!("the worker ended before its time: {why}")));
                self.code = self.code.max(1);
            }
            Some(Exit::Signal(_)) | None => {}
        }
        self.end_if_alone(out);
    }

    fn end_if_alone(&self, out: &mut Vec<Action>) {
        if self.workers.is_empty() {
            out.push(Action::End { code: self.code });
        }
    }

    /// When a worker that starts again after a crash is given up. The very first one has all the time it needs.
    fn late_at(&self) -> Option<Moment> {
        let current = self.current.filter(|_| self.ever_ready && !self.stopping)?;
        let known = self.workers.get(&current).filter(|known| known.stage == Stage::Starting)?;
        Some(known.since + self.ready_timeout)
    }

    fn time(&mut self, now: Moment, out: &mut Vec<Action>) {
        if self.restart_at.is_some_and(|at| at <= now) {
            self.start(Program::KnownGood, now, out);
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.until <= now) {
            let waited = self.ready_timeout;
            self.abandon(format!("the new process was not ready within {waited:?}"), out);
        }
        if let (Some(current), Some(late)) = (self.current, self.late_at())
            && late <= now
        {
            out.push(say(
                Level::Error,
                format!("the worker was not ready within {:?}: it is ended", self.ready_timeout),
            ));
            out.push(Action::Kill { who: current });
            // Once is enough: its end follows.
            if let Some(known) = self.workers.get_mut(&current) {
                known.since = now;
            }
        }
    }
}

fn say(level: Level, text: String) -> Action {
    Action::Say { level, text }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

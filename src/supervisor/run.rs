//! The one thread: waits for whatever happens next, asks the machine what it means, and does it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::binary::Binary;
use super::machine::{Action, Event, Exit, Level, Machine, Notice, Program, Worker};
use super::notify::Notify;
use super::process::{self, WORKER_ARGUMENT};
use super::replace::{CHECK_ARGUMENT, RESUME_ARGUMENT, Saved, SavedWorker, replace};
use super::sys;
use super::table::Table;
use crate::handover::{BindError, Channel, FromWorker, Received, ToWorker};
use crate::sockets;

/// Messages that one worker may bring before the others have their turn.
const IN_A_ROW: usize = 64;

struct Supervisor {
    machine: Machine,
    table: Table,
    notify: Notify,
    workers: BTreeMap<Worker, Running>,
    good: Binary,
    /// Of every worker.
    arguments: Vec<OsString>,
    /// What the frozen worker gave for its successor.
    state: Option<OwnedFd>,
    /// What is to be thought about next.
    events: VecDeque<Event>,
    began: Instant,
    next_ping: Option<Instant>,
    /// To become another program as soon as nothing is under way.
    replace: bool,
    ended: Option<u8>,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    /// `None` once the worker has closed its end.
    channel: Option<Channel>,
    binary: Option<Binary>,
}

/// How a supervisor begins.
#[derive(Debug, Clone, Copy)]
pub enum Beginning {
    New,
    /// In the place of the program that this process was before.
    Resumed(RawFd),
    /// Only to say whether it could be resumed.
    Check(RawFd),
}

/// Runs workers with `arguments` until it is told to end. The exit code is the worker's.
pub fn run(arguments: Vec<OsString>, beginning: Beginning) -> ExitCode {
    if let Err(error) = crate::telemetry::logs::init() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let made = match beginning {
        Beginning::Check(fd) => saved(fd).map(|_| None),
        Beginning::New => Supervisor::new(arguments).map(Some),
        Beginning::Resumed(fd) => saved(fd).and_then(|saved| Supervisor::resumed(arguments, saved)).map(Some),
    };
    match made {
        Ok(Some((supervisor, signals))) => supervisor.serve(&signals),
        Ok(None) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn saved(fd: RawFd) -> Result<Saved, String> {
    let broken = |why: String| format!("the supervisor cannot go on from what was saved: {why}");
    sys::keep_over_exec(fd, false).map_err(|error| broken(error.to_string()))?;
    // SAFETY: it is open, as was just seen, and was given to this process by its number.
    Saved::read(unsafe { OwnedFd::from_raw_fd(fd) }).map_err(broken)
}

fn hear_signals() -> Result<OwnedFd, String> {
    sys::hear_signals().map_err(|error| format!("cannot listen for signals: {error}"))
}

impl Supervisor {
    fn new(arguments: Vec<OsString>) -> Result<(Supervisor, OwnedFd), String> {
        // Before anything is opened: what was passed has the first numbers.
        let inherited =
            sockets::inherited().map_err(|why| format!("the sockets that were passed cannot be used: {why}"))?;
        let signals = hear_signals()?;
        let good = Binary::own().map_err(|error| format!("cannot find the own program: {error}"))?;
        let notify = Notify::from_environment();
        let supervisor = Supervisor {
            machine: Machine::default(),
            table: Table::new(inherited),
            next_ping: notify.watchdog.map(|_| Instant::now()),
            notify,
            workers: BTreeMap::new(),
            good,
            arguments,
            state: None,
            events: VecDeque::from([Event::Begin]),
            began: Instant::now(),
            replace: false,
            ended: None,
        };
        Ok((supervisor, signals))
    }

    fn resumed(arguments: Vec<OsString>, saved: Saved) -> Result<(Supervisor, OwnedFd), String> {
        // Those that came in between wait already.
        let signals = hear_signals()?;
        let lost = |error: io::Error| format!("the supervisor cannot go on: {error}");
        let mut workers = BTreeMap::new();
        for SavedWorker { who, pid, fd } in saved.workers {
            let channel = fd.map(Channel::inherited).transpose().map_err(lost)?;
            workers.insert(who, Running { pid, channel, binary: None });
        }
        let notify = Notify::from_environment();
        let mut supervisor = Supervisor {
            machine: saved.machine,
            table: Table::restored(saved.sockets).map_err(lost)?,
            next_ping: notify.watchdog.map(|_| Instant::now()),
            notify,
            workers,
            good: Binary::restored(saved.good).map_err(lost)?,
            arguments,
            state: None,
            events: VecDeque::new(),
            began: Instant::now().checked_sub(saved.elapsed).unwrap_or_else(Instant::now),
            replace: false,
            ended: None,
        };
        info!(version = env!("CARGO_PKG_VERSION"), "the supervisor is the new program too");
        supervisor.reap();
        Ok((supervisor, signals))
    }

    /// Becomes the program of the worker that serves.
    fn become_new(&mut self) {
        self.replace = false;
        let workers = self.workers.iter().map(|(who, running)| SavedWorker {
            who: *who,
            pid: running.pid,
            fd: running.channel.as_ref().map(|channel| channel.as_fd().as_raw_fd()),
        });
        let saved = Saved::new(
            self.began.elapsed(),
            self.machine.clone(),
            self.table.saved(),
            workers.collect(),
            self.good.saved(),
        );
        let why = replace(&saved, &self.good, &self.arguments);
        warn!(why, "the supervisor stays the program it was; the worker is the new one");
    }
}

impl Supervisor {
    fn serve(mut self, signals: &OwnedFd) -> ExitCode {
        loop {
            self.think();
            if let Some(code) = self.ended {
                return ExitCode::from(code);
            }
            if self.replace && self.machine.is_quiet() && !self.notify.is_behind() {
                self.become_new();
            }
            let (workers, fds): (Vec<Worker>, Vec<RawFd>) = self
                .workers
                .iter()
                .filter_map(|(who, running)| Some((*who, running.channel.as_ref()?.as_fd().as_raw_fd())))
                .unzip();
            let all: Vec<RawFd> = std::iter::once(signals.as_raw_fd()).chain(fds).collect();
            let ready = sys::wait(&all, self.next_wake());
            // What workers have said comes before what has become of them.
            for (who, _) in workers.iter().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready) {
                self.listen(*who);
            }
            if ready.first() == Some(&true) {
                while let Some(signal) = sys::next_signal(signals.as_fd()) {
                    self.signalled(signal);
                }
            }
            self.ping();
            self.notify.catch_up();
            self.events.push_back(Event::Time);
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let machine = self.machine.wake_at().map(|at| at.saturating_sub(self.began.elapsed()));
        let ping = self.next_ping.map(|at| at.saturating_duration_since(Instant::now()));
        [machine, ping, self.notify.again_in()].into_iter().flatten().min()
    }

    fn think(&mut self) {
        while let Some(event) = self.events.pop_front() {
            for action in self.machine.on(event, self.began.elapsed()) {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { who, program } => self.start(who, &program),
            Action::Send { to, message } => self.send(to, &message, None),
            Action::GiveState { to } => {
                let state = self.state.take();
                self.send(to, &ToWorker::State, state);
            }
            Action::Signal { who, signal } => {
                if let Some(running) = self.workers.get(&who) {
                    sys::kill(running.pid, signal);
                }
            }
            Action::Kill { who } => {
                if let Some(running) = self.workers.get(&who) {
                    sys::kill(running.pid, libc::SIGKILL);
                }
            }
            Action::Settle { who } => {
                if let Some(binary) = self.workers.get_mut(&who).and_then(|running| running.binary.take()) {
                    self.good = binary;
                }
                for address in self.table.settle() {
                    warn!(
                        address,
                        "a socket that was passed belongs to no listener of the configuration: nobody accepts on it"
                    );
                }
            }
            Action::ForgetState => self.state = None,
            Action::Replace => self.replace = true,
            Action::Notify(notice) => self.notify.tell(&notice),
            Action::Say { level: Level::Info, text } => info!("{text}"),
            Action::Say { level: Level::Warn, text } => warn!("{text}"),
            Action::Say { level: Level::Error, text } => error!("{text}"),
            Action::End { code } => self.ended = Some(code),
        }
    }

    fn start(&mut self, who: Worker, program: &Program) {
        let started = match program {
            Program::KnownGood => process::start(&self.good, &self.arguments)
                .map(|(pid, channel)| Running { pid, channel: Some(channel), binary: None })
                .map_err(|error| format!("{} cannot be started: {error}", self.good.path.display())),
            Program::New(path) => self.start_new(path.as_deref()),
        };
        match started {
            Ok(running) => {
                info!(pid = running.pid, "worker started");
                self.workers.insert(who, running);
            }
            Err(why) => self.events.push_back(Event::NotStarted { who, why }),
        }
    }

    fn start_new(&self, path: Option<&Path>) -> Result<Running, String> {
        let binary = match path {
            Some(path) => Binary::wanted(path)?,
            None => Binary::again(&self.good.path)?,
        };
        let (pid, channel) = process::start(&binary, &self.arguments)
            .map_err(|error| format!("{} cannot be started: {error}", binary.path.display()))?;
        Ok(Running { pid, channel: Some(channel), binary: Some(binary) })
    }

    fn send(&mut self, to: Worker, message: &ToWorker, fd: Option<OwnedFd>) {
        let Some(running) = self.workers.get(&to) else { return };
        let Some(channel) = &running.channel else { return };
        if let Err(error) = channel.send(message, fd.as_ref().map(|fd| fd.as_fd())) {
            // One that has just ended is noticed as such; one that does not listen is of no use.
            warn!(pid = running.pid, %error, "a worker cannot be told anything");
            if error.kind() == io::ErrorKind::WouldBlock {
                sys::kill(running.pid, libc::SIGKILL);
            }
        }
    }

    fn listen(&mut self, who: Worker) {
        for _ in 0..IN_A_ROW {
            let Some(running) = self.workers.get_mut(&who) else { return };
            let Some(channel) = &running.channel else { return };
            match channel.try_receive::<FromWorker>() {
                Ok(Received::Message(message, fd)) => self.told(who, message, fd),
                Ok(Received::Unknown(error)) => {
                    warn!(pid = running.pid, error, "a worker said something unknown here: ignored");
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => {
                    running.channel = None;
                    return;
                }
                Err(error) => {
                    warn!(pid = running.pid, %error, "what a worker said could not be received");
                    return;
                }
            }
        }
    }

    fn told(&mut self, from: Worker, message: FromWorker, fd: Option<OwnedFd>) {
        let event = match message {
            FromWorker::Hello { format, version } => {
                let pid = self.workers.get(&from).map_or(0, |running| running.pid);
                Event::Hello { from, format, version, pid }
            }
            FromWorker::Bind { ask, key } => return self.bind(from, ask, &key),
            FromWorker::Release { key } => return self.table.release(&key, from),
            FromWorker::WantState => Event::WantState { from },
            FromWorker::Ready => Event::Ready { from },
            FromWorker::ReadyTimeout { ms } => Event::ReadyTimeout { from, timeout: Duration::from_millis(ms) },
            FromWorker::Frozen => {
                self.state = fd;
                Event::Frozen { from }
            }
            FromWorker::NotNow { why } => Event::NotNow { from, why },
            FromWorker::Reclaim { why } => Event::Reclaim { from, why },
            FromWorker::Upgrade(asked) => Event::Upgrade { from: Some((from, asked)) },
            FromWorker::Reloaded => return self.notify.tell(&Notice::Ready),
            FromWorker::Pong { .. } => return self.notify.alive(),
            FromWorker::Held { services } => return self.tell_others(from, &ToWorker::Held { services }),
            FromWorker::Left(left) => {
                let pid = self.workers.get(&from).map_or(0, |running| running.pid);
                return self.tell_current(from, &ToWorker::Left { pid, left });
            }
            FromWorker::Counted => {
                if let (Some(to), Some(counts)) = (self.machine.current().filter(|current| *current != from), fd) {
                    self.send(to, &ToWorker::Counted, Some(counts));
                }
                return;
            }
        };
        self.events.push_back(event);
        // In order with the sockets it asks for.
        self.think();
    }

    /// What whoever decides has to say to those that only finish.
    fn tell_others(&mut self, from: Worker, message: &ToWorker) {
        if self.machine.current() == Some(from) {
            let others: Vec<Worker> =
                self.workers.keys().copied().filter(|who| self.machine.is_retired(*who)).collect();
            others.into_iter().for_each(|who| self.send(who, message, None));
        }
    }

    fn tell_current(&mut self, from: Worker, message: &ToWorker) {
        let hears = |current: &Worker| *current != from && self.machine.can_hear(*current);
        if let Some(current) = self.machine.current().filter(hears) {
            self.send(current, message, None);
        }
    }

    fn bind(&mut self, from: Worker, ask: u64, key: &sockets::Key) {
        let bound = self.table.bind(key, from).and_then(|fd| fd.try_clone_to_owned());
        match bound {
            Ok(fd) => self.send(from, &ToWorker::Bound { ask }, Some(fd)),
            Err(error) => self.send(from, &ToWorker::NotBound { ask, error: BindError::from(&error) }, None),
        }
    }

    fn signalled(&mut self, signal: i32) {
        match signal {
            libc::SIGCHLD => self.reap(),
            libc::SIGUSR2 => self.events.push_back(Event::Upgrade { from: None }),
            libc::SIGHUP => {
                let current = self.machine.current().filter(|current| self.machine.can_hear(*current));
                if let Some(running) = current.and_then(|current| self.workers.get(&current)) {
                    self.notify.tell(&Notice::Reloading);
                    sys::kill(running.pid, signal);
                }
            }
            // Those that still finish write their lines too.
            libc::SIGUSR1 => {
                let hears = |who: &Worker| self.machine.can_hear(*who);
                let pids = self.workers.iter().filter(|(who, _)| hears(who)).map(|(_, running)| running.pid);
                pids.for_each(|pid| sys::kill(pid, signal));
            }
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.events.push_back(Event::Stop { signal }),
            _ => {}
        }
        self.think();
    }

    /// Workers, and what others have left to process 1.
    fn reap(&mut self) {
        while let Some((pid, how)) = sys::reap() {
            let Some(who) = self.workers.iter().find_map(|(who, running)| (running.pid == pid).then_some(*who)) else {
                continue;
            };
            // Its last words first.
            self.listen(who);
            self.workers.remove(&who);
            self.table.left(who);
            self.tell_current(who, &ToWorker::Gone { pid });
            if let Exit::Signal(signal) = how {
                warn!(pid, signal, "worker ended by a signal");
            }
            self.events.push_back(Event::Exited { who, how });
            self.think();
        }
    }

    /// A sign of life is passed on only if the worker gives one.
    fn ping(&mut self) {
        let (Some(every), Some(at)) = (self.notify.watchdog, self.next_ping) else { return };
        let now = Instant::now();
        if at > now {
            return;
        }
        self.next_ping = Some(now + every / 4);
        if let Some(current) = self.machine.current().filter(|_| self.machine.is_serving()) {
            self.send(current, &ToWorker::Ping { nth: 0 }, None);
        }
    }
}

/// The command line of the workers: that of this process without what only the supervisor is told.
pub fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let hidden = [WORKER_ARGUMENT, RESUME_ARGUMENT, CHECK_ARGUMENT];
    if let Some(at) = arguments.iter().position(|argument| hidden.iter().any(|hidden| argument == hidden)) {
        arguments.truncate(at);
    }
    arguments
}

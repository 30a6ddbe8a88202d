//! A world whose process is a supervisor with a worker below it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::wait::{PATIENCE, until};
use super::world::World;

impl World {
    /// As [`World::start`], under a supervisor.
    pub async fn start_supervised(&mut self, rest: &str) {
        self.write_config(&(self.preamble() + rest));
        self.spawn_supervised();
        self.ready().await;
    }

    /// As [`World::start_supervised`], with the admin API on a socket, which is given.
    pub async fn start_supervised_on_a_socket(&mut self, rest: &str) -> PathBuf {
        let socket = self.path("admin.sock");
        let text = (self.preamble() + rest).replace(&format!("\"{}\"", self.admin()), "\"unix:admin.sock\"");
        self.write_config(&text);
        self.spawn_supervised();
        until("it is ready", || async { healthcheck(&socket).await == Some(0) }).await;
        socket
    }

    pub fn spawn_supervised(&mut self) {
        self.spawn_with(&["run", "-c", "switchback.yaml", "--threads", "2"]);
    }

    /// A program of this text in the world's folder.
    pub fn program(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let draft = self.path(&format!("{name}.draft"));
        std::fs::write(&draft, text).expect("the folder is ours");
        self.install(&draft, name, mode)
    }

    /// A copy of a program, written by another process: what this one writes is open for writing in every child that
    /// another test starts meanwhile, and the kernel runs no such file (ETXTBSY).
    pub fn install(&self, from: impl AsRef<Path>, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        let mode = format!("--mode={mode:o}");
        let done = Command::new("install").arg(mode).arg(from.as_ref()).arg(&path).status().expect("coreutils");
        assert!(done.success(), "{}: {done}", path.display());
        path
    }

    /// Processes that the supervisor has started and that live.
    pub fn workers(&self) -> BTreeSet<u32> {
        children(self.pid())
    }

    /// Its only worker, once the short-lived processes of an upgrade are gone.
    pub fn worker(&self) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            let workers = self.workers();
            if let (1, Some(worker)) = (workers.len(), workers.first()) {
                return *worker;
            }
            assert!(Instant::now() < end, "workers: {workers:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Until `pid` is gone.
    pub async fn until_gone(&self, pid: u32) {
        until(&format!("process {pid} ends"), || async { !self.workers().contains(&pid) }).await;
    }

    /// Until something else than `before` answers the operator. Its process id.
    pub async fn successor_of(&self, before: u32) -> u32 {
        let found = std::cell::Cell::new(before);
        until("another process answers", || async {
            let seen = self.admin_get("/api/v1/status").await;
            if seen.status == 200 {
                found.set(seen.json()["pid"].as_u64().expect("a number") as u32);
            }
            found.get() != before
        })
        .await;
        found.get()
    }
}

/// The exit code of `switchback healthcheck` over this socket.
pub async fn healthcheck(socket: &Path) -> Option<i32> {
    let mut command = binary();
    command.args(["healthcheck", "--admin", &format!("unix:{}", socket.display())]);
    super::world::run(command).await.code
}

/// Children of a process that are not only waiting to be reaped.
pub fn children(of: u32) -> BTreeSet<u32> {
    let tasks =
        std::fs::read_dir(format!("/proc/{of}/task")).map(|tasks| tasks.flatten().collect()).unwrap_or(Vec::new());
    let lists = tasks.iter().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<u32> =
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    all.into_iter().filter(|pid| !matches!(state(*pid), Some('Z') | None)).collect()
}

/// As in `/proc/PID/stat`; `None` if there is no such process.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call.
    let sent = unsafe { libc::kill(pid as i32, signal) };
    assert_eq!(sent, 0, "process {pid} cannot be signalled: {}", std::io::Error::last_os_error());
}

/// SIGKILL, and waits for the end: until then it may still accept.
pub async fn kill_9(pid: u32) {
    signal(pid, libc::SIGKILL);
    until("it is dead", || async { state(pid).is_none() }).await;
}

/// The binary under test, ready for more arguments.
pub fn binary() -> Command {
    Command::new(super::world::binary())
}

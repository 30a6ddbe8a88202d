//! The proxies that are compared: how each is started, reloaded, upgraded and killed, as its manual says.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::machine;

/// For anything that a proxy is asked to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// What systemd waits before it starts a service again, if its unit does not say otherwise.
const RESTART: Duration = Duration::from_millis(100);
const FILE: &str = "proxy.yaml";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Switchback,
    Nginx,
    Haproxy,
    /// With the option that leaves idle connections open until their next answer.
    HaproxyGentle,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Switchback, Kind::Nginx, Kind::Haproxy, Kind::HaproxyGentle];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Switchback => "switchback",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::HaproxyGentle => "haproxy, idle-close-on-response",
        }
    }

    /// The error says why it is not there.
    pub fn program(self) -> Result<PathBuf, String> {
        let name = match self {
            Kind::Switchback => return Ok(env!("CARGO_BIN_EXE_switchback").into()),
            Kind::Nginx => "nginx",
            Kind::Haproxy | Kind::HaproxyGentle => "haproxy",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let found = places.map(|place| place.join(name)).find(|program| program.is_file());
        found.ok_or_else(|| format!("not installed (Debian: apt install {name})"))
    }
}

/// A proxy that serves. Ends when dropped, with everything it started.
pub struct Peer {
    pub kind: Kind,
    pub address: SocketAddr,
    program: PathBuf,
    folder: TempDir,
    admin: SocketAddr,
    origin: SocketAddr,
    child: Child,
    /// Of the process group of everything it started.
    leader: u32,
    /// Counts the configurations; each answers with its number.
    generation: u64,
}

impl Peer {
    pub fn start(kind: Kind, origin: SocketAddr) -> io::Result<Peer> {
        let program = kind.program().map_err(io::Error::other)?;
        let folder = tempfile::Builder::new().prefix("switchback-bench-").tempdir()?;
        let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let (address, admin) = (one.local_addr()?, two.local_addr()?);
        drop((one, two));
        write(folder.path(), &text(kind, address, admin, folder.path(), origin, 0))?;
        let child = spawn(kind, &program, folder.path())?;
        let leader = child.id();
        let mut peer = Peer { kind, address, program, folder, admin, origin, child, leader, generation: 0 };
        peer.until("it serves", || peer.serves(0))?;
        peer.leader = peer.master()?;
        Ok(peer)
    }

    /// A changed configuration; returns when it answers.
    pub fn reload(&mut self) -> io::Result<()> {
        self.generation += 1;
        write(self.folder.path(), &self.text())?;
        match self.kind {
            Kind::Switchback | Kind::Nginx => signal(self.master()?, libc::SIGHUP)?,
            Kind::Haproxy | Kind::HaproxyGentle => signal(self.master()?, libc::SIGUSR2)?,
        }
        self.until("the new configuration answers", || self.serves(self.generation))
    }

    /// Another process of the same program takes over; returns when it has.
    pub fn upgrade(&mut self) -> io::Result<()> {
        match self.kind {
            Kind::Switchback => {
                let mut command = Command::new(&self.program);
                command.arg("upgrade").arg("-c").arg(self.folder.path().join(FILE)).current_dir(self.folder.path());
                let ran = command.output()?;
                match ran.status.success() {
                    true => Ok(()),
                    false => Err(io::Error::other(String::from_utf8_lossy(&ran.stderr).into_owned())),
                }
            }
            // "Upgrading Executable on the Fly" in its manual. It refuses with `daemon off`.
            Kind::Nginx => {
                let old = self.master()?;
                signal(old, libc::SIGUSR2)?;
                let new = || self.master().ok().filter(|new| *new != old && !children(*new).is_empty());
                self.until("the new master has workers", || new().is_some())?;
                signal(old, libc::SIGWINCH)?;
                signal(old, libc::SIGQUIT)?;
                self.until("the old master is gone", || is_gone(old))
            }
            // The master executes its program again, and the sockets are passed on.
            Kind::Haproxy | Kind::HaproxyGentle => {
                let before = children(self.child.id());
                signal(self.child.id(), libc::SIGUSR2)?;
                let new = || children(self.child.id()).difference(&before).count() > 0;
                self.until("there is a new worker", new)
            }
        }
    }

    /// Ends whatever serves, as `kill -9` does.
    pub fn kill_workers(&self) -> io::Result<()> {
        let master = self.master()?;
        self.until("there are workers", || !children(master).is_empty())?;
        children(master).into_iter().try_for_each(|worker| signal(worker, libc::SIGKILL))
    }

    /// Does what systemd does for a service that has ended.
    pub fn revive(&mut self) -> io::Result<bool> {
        // The process that is started ends as soon as the master has the sockets.
        if self.kind == Kind::Nginx || !machine::has_ended(self.child.id()) {
            return Ok(false);
        }
        thread::sleep(RESTART);
        self.child.wait()?;
        self.child = spawn(self.kind, &self.program, self.folder.path())?;
        self.leader = self.child.id();
        Ok(true)
    }

    /// The process that keeps the sockets.
    fn master(&self) -> io::Result<u32> {
        match self.kind {
            Kind::Switchback | Kind::Haproxy | Kind::HaproxyGentle => Ok(self.child.id()),
            Kind::Nginx => {
                let text = fs::read_to_string(self.folder.path().join("pid"))?;
                text.trim().parse().map_err(io::Error::other)
            }
        }
    }

    fn text(&self) -> String {
        text(self.kind, self.address, self.admin, self.folder.path(), self.origin, self.generation)
    }

    fn serves(&self, generation: u64) -> bool {
        ask_generation(self.address).is_ok_and(|seen| seen == generation)
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if machine::has_ended(self.child.id()) && self.kind != Kind::Nginx || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let last = log.lines().rev().take(5).collect::<Vec<_>>().join(" / ");
                return Err(io::Error::other(format!("{}: not so: {what}; its last lines: {last}", self.kind.name())));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its process group holds nothing but what it started. The leader is not waited for yet, so nobody else can have
        // been given its number.
        // SAFETY: no memory is involved.
        unsafe { libc::kill(-(self.leader as libc::pid_t), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

fn spawn(kind: Kind, program: &Path, folder: &Path) -> io::Result<Child> {
    let file = folder.join(FILE);
    let mut command = Command::new(program);
    match kind {
        Kind::Switchback => command.args(["run", "--threads", "2", "-c"]).arg(&file),
        Kind::Nginx => command.arg("-p").arg(folder).arg("-c").arg(&file),
        Kind::Haproxy | Kind::HaproxyGentle => command.args(["-W", "-db", "-f"]).arg(&file),
    };
    let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).current_dir(folder);
    // SAFETY: between fork and exec, it only makes one system call and touches no allocator or lock.
    unsafe { command.pre_exec(machine::end_with_parent) };
    command.spawn()
}

fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved; the process is our child, or one of its.
    let done = unsafe { libc::kill(pid as libc::pid_t, signal) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Those that are not only waiting to be reaped.
fn children(of: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect::<String>();
    lists.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| !is_gone(*pid)).collect()
}

fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "pid (name) state …": the name may contain anything.
    stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
}

fn ask_generation(address: SocketAddr) -> io::Result<u64> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.write_all(b"GET /generation HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    text.rsplit("\r\n\r\n").next().and_then(|body| body.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData.into())
}

/// Whole or not at all: under another name first.
fn write(folder: &Path, text: &str) -> io::Result<()> {
    let next = folder.join("next");
    fs::write(&next, text)?;
    fs::rename(next, folder.join(FILE))
}

/// The same work for each: two threads or workers, keep-alive on both sides, the same queue, no access log.
fn text(
    kind: Kind,
    address: SocketAddr,
    admin: SocketAddr,
    folder: &Path,
    origin: SocketAddr,
    generation: u64,
) -> String {
    let folder = folder.display();
    match kind {
        Kind::Switchback => format!(
            r#"schema: 1
state_dir: {folder}/state
listeners: {{ web: {{ bind: "{address}" }} }}
admin: {{ bind: "{admin}" }}
routes:
  - {{ name: generation, match: {{ path: /generation }}, respond: {{ status: 200, body: "{generation}" }} }}
  - {{ name: all, match: {{ path_prefix: / }}, service: origin }}
services:
  origin:
    versions: {{ v1: {{ endpoints: ["{origin}"] }} }}
    active: v1
"#
        ),
        Kind::Nginx => {
            let user = if machine::is_root() { "user root;" } else { "" };
            format!(
                r#"{user}
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream origin {{ server {origin}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen {address} backlog=4096;
        location = /generation {{ return 200 "{generation}"; }}
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"#
            )
        }
        Kind::Haproxy | Kind::HaproxyGentle => {
            let gentle = if kind == Kind::HaproxyGentle { "option idle-close-on-response" } else { "" };
            format!(
                r#"global
    nbthread 2
    maxconn 8000
    stats socket {folder}/stats.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    http-reuse always
    {gentle}
frontend web
    bind {address} backlog 4096
    http-request return status 200 content-type text/plain string "{generation}" if {{ path /generation }}
    default_backend origin
backend origin
    server one {origin} pool-max-conn 512
"#
            )
        }
    }
}

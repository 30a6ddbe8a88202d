//! The proxies compared: how each is configured, started, told of a change, and ended.
//!
//! All do the same work: one worker, one catch-all route, keep-alive on both sides, no access log.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::machine;
use crate::tls::Secure;

const START: Duration = Duration::from_secs(15);
const END: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Switchback,
    Bare,
    Nginx,
    Haproxy,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Switchback, Kind::Bare, Kind::Nginx, Kind::Haproxy];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Switchback => "switchback",
            Kind::Bare => "bare pingora",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
        }
    }

    /// Built from this repository, so it has to be there.
    pub fn is_ours(self) -> bool {
        match self {
            Kind::Switchback | Kind::Bare => true,
            Kind::Nginx | Kind::Haproxy => false,
        }
    }

    /// Whether it can be given another configuration while it runs.
    pub fn reloads(self) -> bool {
        match self {
            Kind::Switchback | Kind::Nginx | Kind::Haproxy => true,
            Kind::Bare => false,
        }
    }
}

/// A proxy that can be started.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub kind: Kind,
    pub program: PathBuf,
    pub version: String,
}

/// Finds the program; the error says why it is not there.
pub fn find(kind: Kind) -> Result<Proxy, String> {
    let program = match kind {
        Kind::Switchback => PathBuf::from(env!("CARGO_BIN_EXE_switchback")),
        Kind::Bare => build_bare()?,
        Kind::Nginx => installed("nginx")?,
        Kind::Haproxy => installed("haproxy")?,
    };
    let version = match kind {
        Kind::Switchback => env!("CARGO_PKG_VERSION").to_string(),
        Kind::Bare => String::new(),
        Kind::Nginx | Kind::Haproxy => version(&program),
    };
    Ok(Proxy { kind, program, version })
}

/// Builds `examples/bare_pingora.rs` into the folder that switchback was built into, in the same profile.
fn build_bare() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_BIN_EXE_switchback")).parent().ok_or("no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => return Err("the target folder has no name".to_string()),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--example", "bare_pingora", "--profile", profile])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.parent().unwrap_or(folder))
        .status();
    match built {
        Ok(status) if status.success() => Ok(folder.join("examples/bare_pingora")),
        Ok(status) => Err(format!("building the example failed: {status}")),
        Err(problem) => Err(format!("cargo could not be started: {problem}")),
    }
}

fn installed(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    found.ok_or_else(|| format!("not installed (Debian: apt install {name})"))
}

fn version(program: &Path) -> String {
    let Ok(output) = Command::new(program).arg("-v").output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let digits = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.');
    text.split([' ', '/', '\n']).find(digits).map(|word| word.chars().take(12).collect()).unwrap_or_default()
}

/// Every other round backwards: who is measured first is not always the same.
pub fn in_turn<T>(round: usize, all: impl Iterator<Item = T>) -> Vec<T> {
    let mut order: Vec<T> = all.collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// A proxy that serves. Ends when dropped, with everything it started.
pub struct Running {
    pub kind: Kind,
    pub address: SocketAddr,
    child: Child,
    folder: TempDir,
    admin: SocketAddr,
    tls: Tls,
}

/// What stands in the configuration where TLS is wanted.
#[derive(Debug, Clone, Default)]
struct Tls {
    /// Behind the address that is listened at.
    front: String,
    /// Of connections to the endpoint.
    back: String,
}

/// What a proxy is started before.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    pub address: SocketAddr,
    /// With TLS: by whose word (a file of authorities) it must be who (a name).
    pub encrypted: Option<(&'a Path, &'a str)>,
}

impl Running {
    /// Starts `proxy` on `core` in front of `origin` and waits until it accepts connections.
    pub fn start(proxy: &Proxy, origin: SocketAddr, core: usize, secure: Option<&Secure>) -> io::Result<Running> {
        let front = secure.map_or(String::new(), |secure| front_text(proxy.kind, secure));
        Running::start_behind(proxy, core, origin, Tls { front, back: String::new() })
    }

    /// As [`Running::start`], without TLS for clients.
    pub fn start_before(proxy: &Proxy, endpoint: Endpoint<'_>, core: usize) -> io::Result<Running> {
        let back = endpoint.encrypted.map_or(String::new(), |(ca_file, name)| back_text(proxy.kind, ca_file, name));
        Running::start_behind(proxy, core, endpoint.address, Tls { front: String::new(), back })
    }

    fn start_behind(proxy: &Proxy, core: usize, origin: SocketAddr, tls: Tls) -> io::Result<Running> {
        let text = |address, admin, folder: &Path| text(proxy.kind, address, admin, folder, origin, &tls);
        Running::start_as(proxy, core, Some(origin), tls.clone(), text)
    }

    /// Starts switchback with these routes and services.
    pub fn start_with(proxy: &Proxy, behind: &str, core: usize) -> io::Result<Running> {
        let text = |address, admin, _: &Path| switchback_before(address, admin, "") + behind;
        Running::start_as(proxy, core, None, Tls::default(), text)
    }

    fn start_as(
        proxy: &Proxy,
        core: usize,
        origin: Option<SocketAddr>,
        tls: Tls,
        text: impl Fn(SocketAddr, SocketAddr, &Path) -> String,
    ) -> io::Result<Running> {
        let folder = tempfile::Builder::new().prefix("switchback-bench-").tempdir()?;
        let (address, admin) = free_addresses()?;
        write(folder.path(), &text(address, admin, folder.path()))?;
        let file = folder.path().join(FILE);
        let mut command = Command::new(&proxy.program);
        match proxy.kind {
            Kind::Switchback => command.args(["run", "--no-supervisor", "--threads", "1", "-c"]).arg(&file),
            Kind::Bare => {
                let origin = origin.ok_or(io::ErrorKind::InvalidInput)?;
                command.args([address.to_string(), origin.to_string(), "1".to_string()])
            }
            Kind::Nginx => command.arg("-p").arg(folder.path()).arg("-c").arg(&file),
            Kind::Haproxy => command.args(["-W", "-db", "-f"]).arg(&file),
        };
        let log = fs::File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        // SAFETY: between fork and exec, both only make one system call and touch no allocator or lock.
        unsafe { command.pre_exec(move || machine::pin(core).and_then(|()| machine::end_with_parent())) };
        let child = command.spawn()?;
        let mut running = Running { kind: proxy.kind, address, child, folder, admin, tls };
        running.wait_until_it_accepts()?;
        Ok(running)
    }

    /// All processes of this proxy.
    pub fn processes(&self) -> Vec<u32> {
        machine::family(self.child.id())
    }

    /// Puts `origin` in place of the one before and lets the proxy know, as its users do.
    pub fn change(&mut self, origin: SocketAddr) -> io::Result<()> {
        write(self.folder.path(), &text(self.kind, self.address, self.admin, self.folder.path(), origin, &self.tls))?;
        match self.kind {
            Kind::Switchback => Ok(()),               // it watches its file
            Kind::Nginx => self.signal(libc::SIGHUP), // what `nginx -s reload` does
            Kind::Haproxy => self.signal(libc::SIGUSR2),
            Kind::Bare => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        // SAFETY: no memory is involved; the process is our own child and not yet waited for.
        let done = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn wait_until_it_accepts(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START;
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let what = ended.map_or("does not listen".to_string(), |status| format!("ended with {status}"));
                return Err(io::Error::other(format!("{} {what}: {}", self.kind.name(), log.trim())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.signal(libc::SIGTERM);
        let deadline = Instant::now() + END;
        while !machine::has_ended(self.child.id()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        // Whatever is left of its process group, which holds nothing but what it started. The child is not
        // waited for yet, so nobody else can have been given its number.
        // SAFETY: no memory is involved.
        unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

/// Two addresses nobody uses now.
fn free_addresses() -> io::Result<(SocketAddr, SocketAddr)> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, two.local_addr()?))
}

const FILE: &str = "proxy.yaml";

/// Whole or not at all: under another name first.
fn write(folder: &Path, text: &str) -> io::Result<()> {
    let next = folder.join("next");
    fs::write(&next, text)?;
    fs::rename(next, folder.join(FILE))
}

fn front_text(kind: Kind, secure: &Secure) -> String {
    let (cert, key, both) = (secure.file("cert.pem"), secure.file("key.pem"), secure.file("both.pem"));
    match kind {
        Kind::Switchback => format!(
            ", tls: {{ certificates: [{{ cert_file: {}, key_file: {} }}], alpn: [h2, http/1.1] }}",
            cert.display(),
            key.display()
        ),
        Kind::Bare => String::new(),
        Kind::Nginx => format!(
            " ssl http2; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3",
            cert.display(),
            key.display()
        ),
        Kind::Haproxy => format!(" ssl crt {} ssl-min-ver TLSv1.2 alpn h2,http/1.1", both.display()),
    }
}

fn back_text(kind: Kind, ca_file: &Path, name: &str) -> String {
    let ca_file = ca_file.display();
    match kind {
        Kind::Switchback => format!("    upstream: {{ tls: {{ ca_file: {ca_file}, sni: {name} }} }}\n"),
        Kind::Bare => String::new(),
        Kind::Nginx => format!(
            "proxy_ssl_protocols TLSv1.3; proxy_ssl_trusted_certificate {ca_file}; proxy_ssl_verify on; \
             proxy_ssl_server_name on; proxy_ssl_name {name};"
        ),
        Kind::Haproxy => format!(" ssl verify required ca-file {ca_file} sni str({name})"),
    }
}

/// What stands before the routes.
fn switchback_before(address: SocketAddr, admin: SocketAddr, tls: &str) -> String {
    format!(
        r#"schema: 1
listeners: {{ web: {{ bind: "{address}"{tls} }} }}
admin: {{ bind: "{admin}" }}
"#
    )
}

fn text(kind: Kind, address: SocketAddr, admin: SocketAddr, folder: &Path, origin: SocketAddr, tls: &Tls) -> String {
    let Tls { front, back } = tls;
    match kind {
        Kind::Switchback => format!(
            r#"{}routes: [{{ name: all, match: {{ path_prefix: / }}, service: origin }}]
services:
  origin:
    versions: {{ v1: {{ endpoints: ["{origin}"] }} }}
    active: v1
{back}"#,
            switchback_before(address, admin, front)
        ),
        Kind::Bare => String::new(),
        Kind::Nginx => {
            let folder = folder.display();
            let user = if machine::is_root() { "user root;" } else { "" };
            let scheme = if back.is_empty() { "http" } else { "https" };
            format!(
                r#"{user}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_buffer_size 16k;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;
    upstream origin {{ server {origin}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen {address} backlog=4096{front};
        location / {{
            proxy_pass {scheme}://origin;
            {back}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"#
            )
        }
        Kind::Haproxy => {
            let folder = folder.display();
            // It counts two descriptors for each, but clients that do nothing take one: without strict limits it
            // starts although it might come short.
            let most = machine::raise_open_files().saturating_sub(1000).min(16_000);
            format!(
                r#"global
    nbthread 1
    maxconn {most}
    no strict-limits
    stats socket {folder}/stats.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    http-reuse always
frontend web
    bind {address} backlog 4096{front}
    default_backend origin
backend origin
    server one {origin} pool-max-conn 512{back}
"#
            )
        }
    }
}

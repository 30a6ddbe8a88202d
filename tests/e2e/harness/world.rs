//! One test's world: a folder, a loopback address of its own, origins, and the real process.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Client, Raw, Seen};
use super::origin::Origin;
use super::wait::{PATIENCE, until};

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// Where clients connect.
const WEB: u16 = 8080;
const ADMIN: u16 = 9900;

pub struct World {
    pub dir: TempDir,
    pub ip: IpAddr,
    ports: AtomicU16,
    child: Option<Child>,
    runs: u32,
    /// What the next process has to live with.
    pub hardship: Hardship,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardship {
    None,
    /// No file can be made longer.
    FullDisk,
    /// File modes count, for root too.
    Unprivileged,
}

/// The program under test. Cargo says where it is to tests and benches; an example finds it beside its own folder.
pub fn binary() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_switchback") {
        Some(path) => path.into(),
        None => {
            let own = std::env::current_exe().expect("we run");
            own.parent().and_then(Path::parent).expect("an example is in a target folder").join("switchback")
        }
    }
}

/// What a command of the binary did.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("not JSON ({why}): {self:?}"))
    }
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

impl World {
    /// An empty world; nothing runs yet.
    pub fn new() -> World {
        // The process id keeps two test binaries that run at once apart.
        let nth = WORLDS.fetch_add(1, Ordering::Relaxed);
        let octets = [(std::process::id() % 199 + 32) as u8, (nth / 250) as u8, (nth % 250 + 2) as u8];
        let ip = Ipv4Addr::new(127, octets[0], octets[1], octets[2]);
        let dir = tempfile::Builder::new().prefix("switchback-e2e-").tempdir().expect("a temporary folder");
        World { dir, ip: IpAddr::V4(ip), ports: AtomicU16::new(3000), child: None, runs: 0, hardship: Hardship::None }
    }

    /// An address on which nothing listens.
    pub fn unused(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.ports.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn origin(&self, name: &str) -> Origin {
        Origin::start(name, self.unused()).await
    }

    /// The proxy's client side.
    pub fn web(&self) -> SocketAddr {
        SocketAddr::new(self.ip, WEB)
    }

    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.ip, ADMIN)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("switchback.yaml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The keys that every configuration here begins with.
    pub fn preamble(&self) -> String {
        format!(
            "schema: 1\nstate_dir: ./state\nlisteners:\n  web: {{ bind: \"{}\" }}\nadmin: {{ bind: \"{}\" }}\nexpose: {{ \
             response_headers: true }}\n",
            self.web(),
            self.admin()
        )
    }

    /// Starts the process with [`World::preamble`] and `rest`, and waits until it is ready.
    pub async fn start(&mut self, rest: &str) {
        self.start_text(&(self.preamble() + rest)).await;
    }

    pub async fn start_text(&mut self, text: &str) {
        self.write_config(text);
        self.restart().await;
    }

    /// Starts the process with the configuration as it lies there.
    pub async fn restart(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// One process alone; see [`super::supervised`] for the other.
    pub fn spawn(&mut self) {
        self.spawn_with(&["run", "--no-supervisor", "-c", "switchback.yaml", "--threads", "2"]);
    }

    /// Starts the process with these arguments.
    pub fn spawn_with(&mut self, arguments: &[&str]) {
        let mut command = Command::new(binary());
        command.args(arguments);
        self.spawn_command(command);
    }

    /// Starts the process as `command` says, in this world's folder.
    pub fn spawn_command(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs already");
        self.runs += 1;
        let out = std::fs::File::create(self.path(&format!("stdout.{}", self.runs))).expect("the folder is ours");
        let err = std::fs::File::create(self.log_path()).expect("the folder is ours");
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(out).stderr(err);
        command.env("NO_COLOR", "1").env_remove("SWITCHBACK_ADMIN").env_remove("SWITCHBACK_TOKEN_FILE");
        // A write beyond a limit is to fail, as on a full disk, not to end the process.
        let hardship = self.hardship;
        // SAFETY: `signal`, `setrlimit` and `prctl` may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                match hardship {
                    Hardship::None => {}
                    Hardship::FullDisk => {
                        let limit = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
                        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
                    }
                    Hardship::Unprivileged => {
                        // CAP_DAC_OVERRIDE; whoever is not root has none to drop.
                        libc::prctl(libc::PR_CAPBSET_DROP, 1, 0, 0, 0);
                    }
                }
                Ok(())
            });
        }
        self.child = Some(command.spawn().expect("the binary was built"));
    }

    /// From now on the process can make no file longer: what a full disk does to it.
    pub fn fill_the_disk(&self) {
        self.limit_files_of(self.pid(), 0);
    }

    pub fn empty_the_disk(&self) {
        self.limit_files_of(self.pid(), libc::RLIM_INFINITY);
    }

    /// The length to which one of our processes can make a file.
    pub fn limit_files_of(&self, pid: u32, bytes: u64) {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: both structures outlive the call, and the process is our own child.
        let set = unsafe { libc::prlimit(pid as i32, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    pub async fn ready(&mut self) {
        let end = Instant::now() + PATIENCE * 2;
        loop {
            if let Some(status) = self.child.as_mut().expect("it was started").try_wait().expect("it is our child") {
                panic!("the process ended while starting: {status}\n{}", self.log());
            }
            let ready = self.admin_get("/readyz").await;
            if ready.status == 200 {
                return;
            }
            assert!(Instant::now() < end, "not ready: {} {:?}\n{}", ready.status, ready.text(), self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child has not been waited for, so the id is still its own.
        let sent = unsafe { libc::kill(self.pid() as i32, signal) };
        assert_eq!(sent, 0, "the signal could not be sent");
    }

    /// SIGKILL, and waits for the end.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.as_mut().expect("it runs").try_wait().expect("it is our child") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < end, "still running after {deadline:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM, then [`World::exit`].
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.exit(PATIENCE).await
    }

    fn log_path(&self) -> PathBuf {
        self.path(&format!("stderr.{}", self.runs))
    }

    /// What the present process wrote to stderr.
    pub fn log(&self) -> String {
        read(&self.log_path())
    }

    // --- the file ---

    /// Writes beside and renames over, as editors and deployment tools do.
    pub fn write_config(&self, text: &str) {
        let beside = self.path(".switchback.yaml.new");
        std::fs::write(&beside, text).expect("the folder is ours");
        std::fs::rename(&beside, self.config()).expect("the folder is ours");
    }

    pub fn edit_config(&self, edit: impl FnOnce(String) -> String) {
        self.write_config(&edit(std::fs::read_to_string(self.config()).expect("the file exists")));
    }

    /// [`World::edit_config`], then waits for a newer generation.
    pub async fn edit_and_wait(&self, edit: impl FnOnce(String) -> String) -> u64 {
        let before = self.generation().await;
        self.edit_config(edit);
        self.newer_than(before).await
    }

    pub async fn newer_than(&self, before: u64) -> u64 {
        until("a newer generation is live", || async { self.generation().await > before }).await;
        self.generation().await
    }

    /// An edit that touches no service: one more route. Waits until it is live.
    pub async fn reload_with_route(&self, nth: usize) -> u64 {
        let route = format!(
            "routes:\n  - {{ name: m{nth}, match: {{ path: /m{nth} }}, respond: {{ status: 200, body: m }} }}\n"
        );
        self.edit_and_wait(|text| text.replacen("routes:\n", &route, 1)).await
    }

    // --- clients ---

    pub fn client(&self) -> Client {
        Client::new(self.web())
    }

    pub async fn raw(&self) -> Raw {
        Raw::connect(self.web()).await.expect("the listener accepts")
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Seen {
        self.client().get(path).await
    }

    // --- the operator ---

    pub fn token(&self) -> String {
        read(&self.state_dir().join("admin.token")).trim().to_string()
    }

    pub async fn admin_get(&self, path: &str) -> Seen {
        let mut client = Client::new(self.admin());
        client.host = self.admin().to_string();
        client.get(path).await
    }

    pub async fn admin_post(&self, path: &str, body: Value) -> Seen {
        self.admin_post_with(path, &[], &body.to_string()).await
    }

    pub async fn admin_post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let bearer = format!("Bearer {}", self.token());
        let mut all = vec![("authorization", bearer.as_str())];
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            all.push(("content-type", if body.starts_with('{') { "application/json" } else { "application/yaml" }));
        }
        all.extend_from_slice(headers);
        let mut client = Client::new(self.admin());
        client.host = self.admin().to_string();
        client.send("POST", path, &all, body.as_bytes()).await
    }

    /// `apply` or `plan` with this text, which is said to come from the file of this world.
    pub async fn post_config(&self, call: &str, text: &str) -> Seen {
        let path = format!("/api/v1/config/{call}?name={}", self.config().display());
        self.admin_post_with(&path, &[("content-type", "application/yaml")], text).await
    }

    /// A POST that must be accepted; its receipt.
    #[track_caller]
    pub fn order(&self, path: &str, body: Value) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        let path = format!("/api/v1/{path}");
        async move {
            let seen = self.admin_post(&path, body).await;
            assert_eq!(seen.status, 200, "{path} at {place}: {}", seen.text());
            seen.json()
        }
    }

    pub async fn switch(&self, service: &str, version: &str) -> Value {
        self.order(&format!("services/{service}/switch"), serde_json::json!({ "to": version })).await
    }

    pub async fn weights(&self, service: &str, weights: Value) -> Value {
        self.order(&format!("services/{service}/weights"), weights).await
    }

    pub async fn rollback(&self, service: &str) -> Value {
        self.order(&format!("services/{service}/rollback"), serde_json::json!({ "reason": "test" })).await
    }

    pub async fn status(&self) -> Value {
        let seen = self.admin_get("/api/v1/status").await;
        assert_eq!(seen.status, 200, "{}", seen.text());
        seen.json()
    }

    pub async fn generation(&self) -> u64 {
        self.status().await["generation"]["number"].as_u64().expect("the generation is a number")
    }

    pub async fn service_status(&self, service: &str) -> Value {
        named(&self.status().await["services"], service)
    }

    pub async fn version_status(&self, service: &str, version: &str) -> Value {
        named(&self.service_status(service).await["versions"], version)
    }

    /// Health of a version's only endpoint.
    pub async fn health(&self, service: &str, version: &str) -> String {
        let version = self.version_status(service, version).await;
        version["endpoints"][0]["health"].as_str().unwrap_or("").to_string()
    }

    /// Until a version's first endpoint has that health.
    pub async fn until_health(&self, version: &str, health: &str) {
        until(&format!("{version} is {health}"), || async { self.health("shop", version).await == health }).await;
    }

    /// Sum of the series of that name that have all the labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.admin_get("/metrics").await.text();
        sum_of(&text, name, labels)
    }

    /// Every journaled and live event so far.
    pub async fn events(&self) -> Vec<Value> {
        let mut client = super::SseClient::open_with(
            self.admin(),
            "/api/v1/events",
            &[("host", &self.admin().to_string()), ("last-event-id", "0")],
        )
        .await;
        assert_eq!(client.status, 200);
        // What is kept comes at once; a pause means that was all.
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(300), client.next()).await {}
        let lines = client.text.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|data| serde_json::from_str(data.trim()).expect("an event is JSON")).collect()
    }

    /// Runs the binary with `arguments` beside the process, as an operator would.
    pub async fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.dir.path());
        command.env("NO_COLOR", "1").env("SWITCHBACK_ADMIN", self.admin().to_string());
        command.env("SWITCHBACK_TOKEN_FILE", self.state_dir().join("admin.token"));
        run(command).await
    }
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built");
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let out = tokio::task::spawn_blocking(move || drain(&mut out));
    let err = tokio::task::spawn_blocking(move || drain(&mut err));
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (out, err) = (out.await.expect("the reader does not panic"), err.await.expect("the reader does not panic"));
    Ran { code: status.code(), out, err }
}

fn drain(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() && self.runs > 0 {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the proxy said ---\n{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The entry of a list whose `name` is that.
pub fn named(list: &Value, name: &str) -> Value {
    let found = list.as_array().and_then(|all| all.iter().find(|entry| entry["name"] == name));
    found.cloned().unwrap_or_else(|| panic!("no `{name}` in {list}"))
}

pub fn sum_of(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let mut sum = 0.0;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let (series, value) = rest.rsplit_once(' ').unwrap_or((rest, "0"));
        if labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\""))) {
            sum += value.parse::<f64>().unwrap_or(f64::NAN);
        }
    }
    sum
}

//! Sockets that are passed, news for whoever started it, and the duties of process 1.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::supervised::{binary, children, kill_9, signal};
use crate::harness::wait::PATIENCE;
use crate::harness::*;

const QUICK: &str = "upgrade: { linger: 100ms, drain: 10s }\nshutdown: { pre_drain: 0s, linger: 0s, timeout: 3s }\n";

fn run() -> Command {
    let mut command = binary();
    command.args(["run", "-c", "switchback.yaml", "--threads", "2"]);
    command
}

/// As systemd does it: the sockets from descriptor 3 on, and the process id of the program itself.
fn pass(command: &Command, sockets: &[&TcpListener]) -> Command {
    let mut shell = Command::new("/bin/sh");
    let script = format!("LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES=x:y exec \"$@\"", sockets.len());
    shell.arg("-c").arg(script).arg("sh").arg(command.get_program()).args(command.get_args());
    let raw: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    // SAFETY: only calls that are allowed between fork and exec.
    unsafe {
        shell.pre_exec(move || {
            // First out of the way, so that none is overwritten.
            let high: Vec<i32> = raw.iter().map(|fd| libc::fcntl(*fd, libc::F_DUPFD, 100)).collect();
            for (at, fd) in high.iter().enumerate() {
                if libc::dup2(*fd, 3 + at as i32) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(*fd);
            }
            Ok(())
        });
    }
    shell
}

#[tokio::test]
async fn passed_sockets_are_used_by_their_address_and_outlive_everything() {
    for supervisor in [true, false] {
        let mut world = World::new();
        let v1 = world.origin("v1").await;
        world.write_config(&(world.preamble() + QUICK + &one_service(&[&v1], "active: v1")));
        let web = TcpListener::bind(world.web()).expect("free");
        let other = TcpListener::bind(world.unused()).expect("free");
        // Before anything runs: the kernel takes the connection, and it is answered later.
        let mut early = world.client();
        let early = tokio::spawn(async move { early.get("/").await });
        let mut command = run();
        if !supervisor {
            command.arg("--no-supervisor");
        }
        world.spawn_command(pass(&command, &[&other, &web]));
        world.ready().await;
        assert_eq!(early.await.unwrap().status, 200);
        if supervisor {
            let worker = world.worker();
            world.cli(&["upgrade"]).await.ok();
            world.until_gone(worker).await;
            let worker = world.worker();
            kill_9(worker).await;
            assert_eq!(world.get("/").await.status, 200);
            let unused = other.local_addr().unwrap().to_string();
            assert!(world.log().contains(&unused), "one that no listener names is told: {}", world.log());
        }
        assert_eq!(world.terminate().await.code(), Some(0), "{}", world.log());
        // Whoever passed it still has it, and the next start needs no bind.
        world.spawn_command(pass(&command, &[&web]));
        world.ready().await;
        assert_eq!(world.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_passed_wrongly_is_named() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.write_config(&(world.preamble() + &one_service(&[&v1], "active: v1")));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=lots exec \"$@\"", "sh"]);
    shell.arg(run().get_program()).args(run().get_args());
    world.spawn_command(shell);
    assert_eq!(world.exit(Duration::from_secs(15)).await.code(), Some(1));
    assert!(world.log().contains("LISTEN_FDS"), "{}", world.log());
}

struct Notified {
    socket: UnixDatagram,
    all: String,
}

impl Notified {
    fn bind(world: &World) -> Notified {
        let socket = UnixDatagram::bind(world.path("notify")).expect("free");
        socket.set_nonblocking(true).expect("a socket");
        Notified { socket, all: String::new() }
    }

    fn read(&mut self) -> &str {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            self.all += &String::from_utf8_lossy(&bytes[..length]);
        }
        &self.all
    }

    async fn until(&mut self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.read().contains(what) {
            assert!(Instant::now() < end, "{what} is not told: {}", self.all);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn forget(&mut self) {
        self.read();
        self.all.clear();
    }
}

#[tokio::test]
async fn whoever_started_it_is_told() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.write_config(&(world.preamble() + QUICK + &one_service(&[&v1], "active: v1")));
    let mut told = Notified::bind(&world);
    let mut command = run();
    command.env("NOTIFY_SOCKET", world.path("notify")).env("WATCHDOG_USEC", "400000");
    world.spawn_command(command);
    told.until("READY=1").await;
    assert!(told.all.contains(&format!("MAINPID={}", world.pid())), "{}", told.all);
    assert_eq!(world.admin_get("/readyz").await.status, 200, "not before it is");
    told.until("WATCHDOG=1").await;

    told.forget();
    world.signal(libc::SIGHUP);
    told.until("RELOADING=1\nMONOTONIC_USEC=").await;
    told.until("READY=1").await;

    told.forget();
    let worker = world.worker();
    world.cli(&["upgrade"]).await.ok();
    told.until("RELOADING=1").await;
    told.until("READY=1").await;
    world.until_gone(worker).await;

    // A worker that does not answer gives no sign of life, although the supervisor lives.
    let worker = world.worker();
    signal(worker, libc::SIGSTOP);
    tokio::time::sleep(Duration::from_millis(150)).await;
    told.forget();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!told.read().contains("WATCHDOG"), "{}", told.all);
    signal(worker, libc::SIGCONT);
    told.until("WATCHDOG=1").await;

    world.signal(libc::SIGTERM);
    told.until("STOPPING=1").await;
    assert_eq!(world.exit(Duration::from_secs(10)).await.code(), Some(0));
    // The worker has nothing of it.
    assert!(!world.log().contains("panicked"));
}

#[tokio::test]
async fn a_notify_socket_that_nobody_reads_or_has_stops_nothing() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.write_config(&(world.preamble() + QUICK + &one_service(&[&v1], "active: v1")));
    // Its queue is full from the start.
    let socket = UnixDatagram::bind(world.path("notify")).expect("free");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"x", world.path("notify")).is_ok() {}
    for name in [world.path("notify").display().to_string(), world.path("nowhere").display().to_string(), "bad".into()]
    {
        let mut command = run();
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "50000");
        world.spawn_command(command);
        world.ready().await;
        assert_eq!(world.get("/").await.status, 200, "{name}");
        assert!(world.log().contains("NOTIFY_SOCKET"), "{name}: {}", world.log());
        assert_eq!(world.terminate().await.code(), Some(0), "{name}: {}", world.log());
    }
    drop(socket);
}

/// In a process namespace of its own the supervisor is process 1: what others leave behind is its to reap.
#[tokio::test]
async fn as_process_1_it_reaps_what_others_leave_behind() {
    let possible = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine lets nobody make a process namespace");
        return;
    }
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.write_config(&(world.preamble() + QUICK + &one_service(&[&v1], "active: v1")));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(run().get_program()).args(run().get_args());
    world.spawn_command(command);
    world.ready().await;
    let inits: BTreeSet<u32> = children(world.pid());
    let init = *inits.first().expect("the supervisor");
    assert_eq!(world.status().await["pid"].as_u64(), Some(2), "the worker is the second process there");
    // Processes that outlive their parents, inside.
    for _ in 0..5 {
        let made = Command::new("nsenter")
            .args(["--target", &init.to_string(), "--pid", "--mount", "sh", "-c", "(sleep 0.2 &) ; (exit 3 &)"])
            .status();
        assert!(made.expect("nsenter is where unshare is").success());
    }
    until("only the worker is left", || async {
        let all = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
        all.split_whitespace().count() == 1
    })
    .await;
    let worker = *children(init).first().expect("the worker");
    kill_9(worker).await;
    assert_eq!(world.get("/").await.status, 200, "{}", world.log());
    signal(init, libc::SIGTERM);
    assert_eq!(world.exit(Duration::from_secs(10)).await.code(), Some(0), "{}", world.log());
}

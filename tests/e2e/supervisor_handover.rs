//! What happens around a handover: while the state is on its way, and to what clients and operators have with the
//! process that goes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::harness::http2::{END_HEADERS, END_STREAM, GOAWAY, H2Raw, HEADERS, head};
use crate::harness::rollouts::*;
use crate::harness::supervised::kill_9;
use crate::harness::tls::{Authority, TlsKind};
use crate::harness::*;

const QUICK: &str = "upgrade: { ready_timeout: 20s, linger: 300ms, drain: 20s }\nshutdown: { pre_drain: 0s, linger: 0s, timeout: 3s }\n";

async fn two_versions(more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1, &v2], &format!("active: v1\n{more}")))).await;
    (world, v1, v2)
}

/// A new program that comes as far as the state of the one before, and does `then` with it. `$old`: its format.
fn with_the_state(world: &World, name: &str, then: &str) -> PathBuf {
    // A message is a packet: each is written at once, and read at once.
    let text = format!(
        "#!/bin/bash\nfd=${{@: -1}}\nhear() {{ dd bs=65536 count=1 <&$fd >/dev/null 2>&1; }}\n\
         printf '{{\"hello\":{{\"format\":1,\"version\":\"9.9.9\"}}}}' >&$fd; hear\n\
         printf '\"want_state\"' >&$fd; hear\n\
         old=$(od -An -tu1 -j63 -N1 state/switchback.db | tr -d ' ')\n{then}\n"
    );
    world.program(name, &text, 0o755)
}

/// Writes a newer format into the header of both files.
const MIGRATE: &str = "for file in state/switchback.db state/switchback.db.copy; do\n\
     printf \"\\\\0\\\\0\\\\0\\\\$(printf %o $((old + 1)))\" | dd of=$file bs=1 seek=60 conv=notrunc 2>/dev/null\ndone\n";

#[tokio::test]
async fn a_new_program_that_made_the_journal_newer_and_failed_leaves_the_old_one_its_owner() {
    let (world, _v1, _v2) = two_versions("").await;
    world.switch("shop", "v2").await;
    let before = world.worker();
    let keeps = "cp -p state/switchback.db state/switchback.db.format-$old\n";
    let newer = with_the_state(&world, "newer", &format!("{keeps}{MIGRATE}exit 1"));
    let ran = world.cli(&["upgrade", "--binary", newer.to_str().unwrap()]).await;
    assert!(ran.code == Some(1) && ran.err.contains("exit code 1"), "{ran:?}");
    assert_eq!((world.worker(), world.get("/").await.origin()), (before, Some("v2")));
    let told = |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains("put back"));
    assert!(world.events().await.iter().any(told), "an operator is told\n{}", world.log());
    // It decides and remembers, as if nothing had been.
    world.switch("shop", "v1").await;
    assert_eq!(world.metric("switchback_journal_writable", &[]).await, 1.0);
    kill_9(before).await;
    let next = world.successor_of(before).await;
    assert_eq!(world.get("/").await.origin(), Some("v1"));
    let history = world.admin_get("/api/v1/generations").await.json().to_string();
    assert!(history.contains("v2"), "what was before is not forgotten: {history}");
    world.cli(&["upgrade"]).await.ok();
    world.until_gone(next).await;
    assert_eq!(world.get("/").await.origin(), Some("v1"));
}

#[tokio::test]
async fn a_journal_that_stays_newer_is_said_and_traffic_goes_on() {
    let (world, _v1, _v2) = two_versions("").await;
    let before = world.worker();
    let newer = with_the_state(&world, "newer", &format!("{MIGRATE}exit 1"));
    assert_eq!(world.cli(&["upgrade", "--binary", newer.to_str().unwrap()]).await.code, Some(1));
    until("it says that nothing can be written", || async {
        world.metric("switchback_journal_writable", &[]).await == 0.0
    })
    .await;
    let warnings = world.status().await["warnings"].to_string();
    assert!(warnings.contains("written by a newer switchback"), "{warnings}");
    world.switch("shop", "v2").await;
    assert_eq!((world.worker(), world.get("/").await.origin()), (before, Some("v2")));
}

#[tokio::test]
async fn a_canary_that_breaks_while_the_state_is_away_goes_back_all_the_same() {
    let rollout = "rollout:\n  stages: [50%, 100%]\n  promote_when: { hold: 1h }\n";
    let (world, _v1, v2) = two_versions(rollout).await;
    let load = Load::start(world.web(), &load::Plan { keep_alive: 4, ..load::Plan::default() });
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    let before = world.worker();
    let hangs = with_the_state(&world, "hangs", "exec sleep 60");
    let upgrade = world.admin_post("/api/v1/upgrade", json!({ "binary": hangs }));
    let breaks = async {
        until("the state is away", || async { world.log().contains("frozen:") }).await;
        v2.set(Fault::Status(500));
        until_phase(&world, "rolled_back").await
    };
    let (answer, ended) = tokio::join!(upgrade, breaks);
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("a rollout has to go back"), "{}", answer.text());
    assert_eq!(ended["canary"], "v2", "{ended}");
    load.stop().await;
    kill_9(before).await;
    world.successor_of(before).await;
    assert_eq!(rollout_phase(&world).await, "rolled_back", "and it is written down");
    assert_eq!(world.get("/").await.origin(), Some("v1"));
}

async fn rollout_phase(world: &World) -> String {
    rollout(world).await["phase"].as_str().unwrap_or_default().into()
}

#[tokio::test]
async fn tickets_of_the_old_process_are_good_in_the_new_one() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    Authority::new("ca").issue(&["shop.test"]).write(world.dir.path(), "shop");
    let tls = "8080\", tls: { certificates: [{ cert_file: shop.pem, key_file: shop.key }] } }";
    let text = world.preamble().replacen("8080\" }", tls, 1) + QUICK + &one_service(&[&v1], "active: v1");
    world.write_config(&text);
    world.spawn_supervised();
    world.ready().await;
    let kinds = [&rustls::version::TLS12, &rustls::version::TLS13].map(TlsKind::only);
    let mut resumed = Vec::new();
    for round in 0..2 {
        for kind in &kinds {
            let (tls, seen) = kind.get(world.web(), "shop.test", "/").await.expect("a handshake");
            assert_eq!(seen.status, 200);
            resumed.push(tls.resumed);
        }
        if round == 0 {
            let before = world.worker();
            world.cli(&["upgrade"]).await.ok();
            world.until_gone(before).await;
        }
    }
    assert_eq!(resumed, [false, false, true, true]);
}

#[tokio::test]
async fn a_retiring_process_sends_http2_clients_away_and_finishes_their_streams() {
    let (world, v1, _v2) = two_versions("").await;
    let before = world.worker();
    let mut raw = H2Raw::connect(world.web()).await;
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/slow/1200", &[])).await;
    until("it runs", || async { v1.requests() == 1 }).await;
    world.cli(&["upgrade"]).await.ok();
    let first = raw.until(|frame| frame.kind == GOAWAY).await.expect("a first GOAWAY");
    assert_eq!((&first.payload[..4], first.reason()), (&[0x7f, 0xff, 0xff, 0xff][..], 0));
    let slow = raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).await;
    assert!(slow.is_some(), "what ran is finished");
    world.until_gone(before).await;
    assert!(!world.log().contains("work was cut"), "{}", world.log());
}

#[tokio::test]
async fn a_held_service_stays_held_and_its_requests_wait_in_both_processes() {
    let (world, _v1, _v2) = two_versions("hold: { max_wait: 20s }").await;
    let before = world.worker();
    world.cli(&["hold", "shop"]).await.ok();
    let ask = || {
        let mut client = world.client();
        tokio::spawn(async move { client.get("/").await })
    };
    let waiting = async |count: u64| {
        until("they wait", || async { world.service_status("shop").await["waiting"] == count }).await;
    };
    let old = ask();
    waiting(1).await;
    world.cli(&["upgrade"]).await.ok();
    assert_eq!(world.service_status("shop").await["held"], true);
    let new = ask();
    waiting(1).await;
    assert!(!old.is_finished() && world.workers().contains(&before), "it waits where it was");
    world.cli(&["release", "shop"]).await.ok();
    for one in [old, new] {
        assert_eq!(one.await.unwrap().status, 200);
    }
    world.until_gone(before).await;
}

#[tokio::test]
async fn whoever_looks_sees_what_an_earlier_process_still_has() {
    let (world, v1, _v2) = two_versions("").await;
    let before = world.worker();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    world.cli(&["upgrade"]).await.ok();
    let left = async || world.status().await["retired"][0].clone();
    until("both are seen", || async { left().await["in_flight"] == json!({ "sse": 1, "websocket": 1 }) }).await;
    assert_eq!(left().await["pid"], before);
    let in_flight = async |kind| world.metric("switchback_retired_in_flight", &[("kind", kind)]).await;
    assert_eq!((in_flight("sse").await, in_flight("websocket").await, in_flight("http").await), (1.0, 1.0, 0.0));
    socket.close().await;
    until("one is left", || async { left().await["in_flight"] == json!({ "sse": 1 }) }).await;
    let shown = world.cli(&["status"]).await.ok().out;
    assert!(shown.contains(&before.to_string()), "{shown}");
    drop(stream);
    v1.tick();
    world.until_gone(before).await;
    until("nothing is left", || async { world.status().await["retired"] == json!([]) }).await;
    assert_eq!(in_flight("sse").await, 0.0);
}

#[tokio::test]
async fn an_ejected_endpoint_stays_ejected() {
    let mut world = World::new();
    let (good, bad) = (world.origin("v1").await, world.origin("v1").await);
    let outlier = "outlier: { consecutive_failures: 3, eject_for: 60s, max_ejected: 50% }\nretry: { attempts: 0 }";
    let text = one_service(&[&good, &bad], &format!("active: v1\n{outlier}"));
    world.start_supervised(&(QUICK.to_string() + &text)).await;
    bad.set(Fault::Reset);
    let ejected = async || {
        let version = world.version_status("shop", "v1").await;
        version["endpoints"].as_array().unwrap().iter().filter(|one| one["ejected"] == true).count()
    };
    until("it is ejected", || async { world.get("/").await.status > 0 && ejected().await == 1 }).await;
    let before = bad.requests();
    world.cli(&["upgrade"]).await.ok();
    assert_eq!(ejected().await, 1);
    for _ in 0..10 {
        assert_eq!(world.get("/").await.status, 200);
    }
    assert_eq!(bad.requests(), before, "nobody asks it");
}

/// Another user, on a thread of its own.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            // The call of the C library would change every thread.
            // SAFETY: no memory is involved.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
            act()
        });
        acting.join().expect("it does not panic")
    })
}

#[tokio::test]
async fn a_stranger_cannot_use_the_control_socket_whatever_its_mode() {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    std::fs::set_permissions(world.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = QUICK.to_string() + &one_service(&[&v1], "active: v1");
    let socket = world.start_supervised_on_a_socket(&text).await;
    let ask = || {
        as_nobody(|| {
            use std::io::{Read, Write};
            let mut stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(
                b"POST /api/v1/upgrade HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                  connection: close\r\ncontent-length: 2\r\n\r\n{}",
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        })
    };
    assert_eq!(ask().expect_err("its mode is 0600").kind(), std::io::ErrorKind::PermissionDenied);
    // Somebody opened it to all: the token is still needed.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let answer = ask().expect("it can be opened now");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(world.workers().len(), 1);
    assert_eq!(world.get("/").await.status, 200);
}

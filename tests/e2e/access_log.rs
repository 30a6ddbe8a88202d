//! One JSON line per request, off the request path.

use serde_json::Value;

use crate::harness::load::Plan;
use crate::harness::*;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

#[tokio::test]
async fn each_request_is_one_line_that_explains_it() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&("access_log: { to: access.log }\n".to_string() + &one_service(&[&v1], "active: v1"))).await;
    let mut client = world.client();
    client.get("/one?secret=1").await;
    client.post("/echo", b"hello").await;
    client.get("/status/404").await;
    client.get_with("/", &[("x-evil", "\"},{\"")]).await;
    v1.set(Fault::CloseUnanswered);
    client.post("/fails", b"x").await;
    let log = world.path("access.log");
    until("all five are written", || async { lines(&std::fs::read_to_string(&log).unwrap_or_default()).len() == 5 })
        .await;
    let all = lines(&std::fs::read_to_string(&log).unwrap());
    let text = all[0].to_string();
    for word in ["GET", "/one", "shop", "v1", "weight", "200", &v1.address.to_string()] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(all[0]["generation"].as_u64().is_some(), "{text}");
    assert!(all[2].to_string().contains("404"));
    assert!(
        all[4].to_string().contains("502")
            && (all[4].to_string().contains("reset") || all[4].to_string().contains("stale")),
        "{}",
        all[4]
    );
    assert_eq!(world.metric("switchback_access_log_dropped_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_blocks_nobody() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    // A pipe whose reader reads nothing.
    let pipe = world.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let holder = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    world.start(&("access_log: { to: pipe, buffer: 64 }\n".to_string() + &one_service(&[&v1], "active: v1"))).await;
    v1.stop_recording();
    let load = Load::start(
        world.web(),
        &Plan { keep_alive: 8, fresh: 0, think: std::time::Duration::ZERO, ..Plan::default() },
    );
    load.more(1500).await;
    load.stop().await.assert_unbroken();
    until("what is dropped is counted", || async {
        world.metric("switchback_access_log_dropped_total", &[]).await > 0.0
    })
    .await;
    drop(holder);
    // Nor may it keep the process from ending.
    let status = world.terminate().await;
    assert_eq!(status.code(), Some(0));
}

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::model::HealthCheck;
use crate::endpoints::testing;

/// An origin that passes its check while `well`; counts the questions.
struct Origin {
    port: u16,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

async fn origin() -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (well, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let task = tokio::spawn({
        let (well, asked) = (well.clone(), asked.clone());
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepting");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0)
                {
                }
                asked.fetch_add(1, Ordering::Relaxed);
                let status = if well.load(Ordering::Relaxed) { 200 } else { 500 };
                stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await.ok();
            }
        }
    });
    Origin { port, well, asked, _task: AbortOnDropHandle::new(task) }
}

fn definition(every_ms: u64) -> model::Health {
    model::Health {
        check: HealthCheck::Http { path: "/".into(), host: None, status: vec![200..=299], instance: None },
        every: Duration::from_millis(every_ms),
        timeout: Duration::from_secs(2),
        pass: 2,
        fail: 3,
        jitter_bp: 1_000,
        damping: Duration::ZERO,
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn healths(runtime: &Runtime) -> Vec<Health> {
    runtime.endpoints().map(|endpoint| endpoint.health()).collect()
}

#[tokio::test]
async fn an_endpoint_goes_out_and_comes_back_and_wakes_who_waits() {
    let origin = origin().await;
    let events = Events::default();
    let checks = Checks::start(Handle::current(), events.clone());
    let runtime = testing::runtime(&[("shop", testing::checked(&[origin.port], 1))]);
    let changed = runtime.services[0].core.changed.notified();
    tokio::pin!(changed);
    changed.as_mut().enable();
    assert!(!runtime.services[0].versions[0].has_ready(), "unknown until its first pass");

    checks.bring_in_line(&runtime, |_| Some(definition(10)));
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("woken");
    assert_eq!(healths(&runtime), [Health::Healthy]);

    origin.well.store(false, Ordering::Relaxed);
    until("failing", || healths(&runtime) == [Health::Failing]).await;
    origin.well.store(true, Ordering::Relaxed);
    until("healthy again", || healths(&runtime) == [Health::Healthy]).await;
    let (told, _) = events.subscribe(0);
    let told: Vec<_> = told.iter().map(|event| event.data["to"].as_str().expect("a word").to_string()).collect();
    assert_eq!(told, ["healthy", "failing", "healthy"]);
}

#[tokio::test]
async fn a_reload_leaves_an_unchanged_check_alone_and_keeps_the_verdict_of_a_changed_one() {
    let origin = origin().await;
    let checks = Checks::start(Handle::current(), Events::default());
    let version = testing::checked(&[origin.port], 1);
    let first = testing::runtime(&[("shop", version.clone())]);
    checks.bring_in_line(&first, |_| Some(definition(20)));
    until("healthy", || healths(&first) == [Health::Healthy]).await;

    origin.well.store(false, Ordering::Relaxed);
    let second = testing::runtime(&[("shop", version.clone())]);
    let slower = definition(600_000);
    checks.bring_in_line(&second, |_| Some(slower.clone()));
    assert_eq!(healths(&second), [Health::Healthy], "the verdict stays until the new check speaks");

    // Without a check the endpoint serves, whatever the old check was about to say.
    let third = testing::runtime(&[("shop", version)]);
    checks.bring_in_line(&third, |_| None);
    assert_eq!(healths(&third), [Health::Unchecked]);
    let asked = origin.asked.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(origin.asked.load(Ordering::Relaxed) <= asked + 1, "at most the question on its way");
    assert_eq!(healths(&third), [Health::Unchecked]);
}

#[tokio::test]
async fn what_does_not_answer_is_down_and_what_is_gone_is_not_asked() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound").port();
    let origin = origin().await;
    let checks = Checks::start(Handle::current(), Events::default());
    let both = testing::runtime(&[("shop", testing::checked(&[gone, origin.port], 1))]);
    checks.bring_in_line(&both, |_| Some(definition(10)));
    until("one of each", || healths(&both) == [Health::Down, Health::Healthy]).await;
    let endpoint = &both.services[0].versions[0].endpoints()[0];
    assert!(endpoint.last_change.load().starts_with("down: connect:"), "{}", endpoint.last_change.load());

    checks.bring_in_line(&testing::runtime(&[]), |_| None);
    assert!(checks.state.lock().expect("no panic").checks.is_empty());
    assert!(checks.services.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn why_it_is_out_is_told_as_it_is_now() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let says_nothing = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    }));
    let checks = Checks::start(Handle::current(), Events::default());
    let runtime = testing::runtime(&[("shop", testing::checked(&[port], 1))]);
    checks.bring_in_line(&runtime, |_| Some(definition(10)));
    let endpoint = &runtime.services[0].versions[0].endpoints()[0];
    until("asked more than once", || endpoint.last_change.load().contains("in a row")).await;
    assert!(!endpoint.last_change.load().contains("refused"), "{}", endpoint.last_change.load());
    drop(says_nothing);
    until("nobody is there any more", || endpoint.last_change.load().contains("refused")).await;
}

#[tokio::test]
async fn reconcile_checks_what_is_live_as_its_service_says() {
    let origin = origin().await;
    let codes = Arc::new(crate::outcome::CodesRegistry::new(1));
    let ports = [origin.port];
    let services =
        || vec![testing::compiled("api", &[("v1", &ports)], false), testing::compiled("shop", &[("v1", &ports)], true)];
    let checks = Checks::start(Handle::current(), Events::default());
    let first = testing::snapshot(services(), None, &codes);
    assert_eq!(healths(&first.runtime), [Health::Unchecked, Health::Unknown]);
    checks.reconcile(&first);
    until("healthy", || healths(&first.runtime) == [Health::Unchecked, Health::Healthy]).await;
    assert_eq!(checks.state.lock().expect("no panic").checks.len(), 1);

    let second = testing::snapshot(services(), Some(&first), &codes);
    checks.reconcile(&second);
    assert_eq!(healths(&second.runtime), [Health::Unchecked, Health::Healthy], "carried over");
}

//! The shield, where the canary does not fail but keeps silent: late answers, and requests that wait when it
//! goes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::client::Seen;
use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;
use crate::rollout::receipt_of;

/// Everything goes to the canary, and only errors or an operator end that.
const WHOLE: &str = "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }";
/// As above, whatever the errors.
const UNJUDGED: &str = "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }\n  guardrails: { errors: off }";
const SHORT: &str = "timeouts: { connect: 500ms, request: 1s }";
const LONG: &str = "timeouts: { connect: 500ms, request: 60s }";
/// One failure is enough for an endpoint to be taken out.
const STRICT: &str = "outlier: { consecutive_failures: 1 }";

/// v2 is the canary, in the first stage of its rollout.
async fn canary(more: &[&str]) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\n{}", more.join("\n")))).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until("stage 1", || async { rollout(&world).await["stage"] == 1 }).await;
    (world, v1, v2)
}

async fn rolled_back(world: &World) -> Value {
    until("the rollout is rolled back", || async { rollout(world).await["phase"] == "rolled_back" }).await;
    rollout(world).await
}

/// Until the judge knows of so many requests of the canary, of which so many failed; never of more.
async fn until_judged(world: &World, requests: u64, failures: u64) {
    let what = format!("{failures} of {requests} requests of the canary failed");
    until(&what, || async {
        let meters = rollout(world).await["meters"].clone();
        let judged = [&meters["canary_requests"], &meters["canary_failures"]].map(|count| count.as_u64().unwrap());
        assert!(judged[0] <= requests && judged[1] <= failures, "{what}, not {meters}");
        judged == [requests, failures]
    })
    .await;
}

async fn shielded(world: &World) -> f64 {
    world.metric("switchback_shielded_total", &[("service", "shop")]).await
}

fn ask(world: &World, method: &'static str, path: &str) -> JoinHandle<Seen> {
    let (mut client, path) = (world.client(), path.to_string());
    tokio::spawn(async move { client.send(method, &path, &[], b"").await })
}

/// Requests that have all arrived at an origin that keeps silent.
async fn waiting(
    world: &World,
    origin: &Origin,
    method: &'static str,
    path: &str,
    count: u32,
) -> Vec<JoinHandle<Seen>> {
    origin.set(Fault::Hang);
    let before = origin.executed(path);
    let asked = (0..count).map(|_| ask(world, method, path)).collect();
    until("they have arrived", || async { origin.executed(path) == before + count }).await;
    asked
}

async fn all(asked: Vec<JoinHandle<Seen>>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for one in asked {
        seen.push(soon("an answer", one).await.expect("a client does not panic"));
    }
    seen
}

#[tokio::test]
async fn a_canary_that_hangs_goes_back_and_no_client_sees_it() {
    let slow = "rollout:\n  stages: [5%, 100%]\n  promote_when: { hold: 1h }";
    let (world, _v1, v2) = canary(&[slow, SHORT]).await;
    v2.set(Fault::Hang);
    let plan = Plan { keep_alive: 8, fresh: 1, think: Duration::from_micros(500), ..Plan::default() };
    let load = Load::start(world.web(), &plan);
    let ended = rolled_back(&world).await;
    load.more(200).await;
    let report = load.stop().await;
    report.assert_unbroken();
    assert_eq!(report.from("v2"), 0, "every answer came from stable");
    assert!(ended["meters"]["canary_failures"].as_u64().unwrap() >= 3, "the judge saw them: {ended}");
    assert!(shielded(&world).await >= 3.0);
    let receipt = receipt_of(&world, "rollback").await;
    assert!(receipt["shielded"].as_u64().unwrap() >= 3, "{receipt}");
}

#[tokio::test]
async fn a_late_answer_is_asked_of_stable_once_and_the_connection_goes_on() {
    let (world, v1, v2) = canary(&[UNJUDGED, SHORT]).await;
    let mut client = world.client();
    // The canary's connection comes from the pool: that does not make it stale.
    assert_eq!(client.get("/before").await.version(), Some("v2"));
    v2.set(Fault::Hang);
    let began = Instant::now();
    let seen = client.get("/late").await;
    assert_eq!((seen.status, seen.version(), seen.origin()), (200, Some("v1"), Some("v1")), "{seen:?}");
    assert!(began.elapsed() >= Duration::from_millis(240), "the canary had its time");
    assert_eq!((v1.executed("/late"), v2.executed("/late")), (1, 1));
    // A body that was kept is sent again.
    let seen = client.send("GET", "/echo", &[], b"hello").await;
    assert_eq!((seen.status, seen.version(), seen.text()), (200, Some("v1"), "hello".into()));
    until("their connections to the canary are closed", || async { v2.open() == 0 }).await;
    v2.set(Fault::None);
    assert_eq!(client.get("/after").await.version(), Some("v2"), "the rollout goes on");
    assert_eq!(client.opened, 1);
    until_judged(&world, 4, 2).await;
    assert_eq!(shielded(&world).await, 2.0);
}

#[tokio::test]
async fn what_may_not_run_twice_is_504() {
    let (world, v1, v2) = canary(&[UNJUDGED, SHORT]).await;
    v2.set(Fault::Hang);
    let seen = world.client().post("/order", b"one please").await;
    assert_eq!(seen.status, 504, "{seen:?}");
    assert_eq!((v1.executed("/order"), v2.executed("/order")), (0, 1));
    until_judged(&world, 1, 1).await;
}

#[tokio::test]
async fn a_second_chance_that_hangs_too_is_504() {
    let (world, v1, v2) = canary(&[UNJUDGED, SHORT]).await;
    v1.set(Fault::Hang);
    v2.set(Fault::Hang);
    let began = Instant::now();
    let seen = world.client().get("/both").await;
    assert_eq!(seen.status, 504, "{seen:?}");
    assert!(began.elapsed() >= Duration::from_millis(500), "each had its time: {:?}", began.elapsed());
    assert_eq!((v1.executed("/both"), v2.executed("/both")), (1, 1));
    // Stable's silence is not the canary's.
    until_judged(&world, 1, 1).await;
}

#[tokio::test]
async fn without_the_shield_a_late_answer_is_504() {
    let (world, v1, v2) = canary(&[UNJUDGED, "  shield: false", SHORT]).await;
    v2.set(Fault::Hang);
    assert_eq!(world.client().get("/late").await.status, 504);
    assert_eq!((v1.executed("/late"), v2.executed("/late")), (0, 1));
}

#[tokio::test]
async fn half_a_head_is_no_answer() {
    let (world, v1, v2) = canary(&[UNJUDGED, SHORT]).await;
    v2.set(Fault::DribbleHead(Duration::from_millis(20)));
    let seen = world.client().get("/dribble").await;
    assert_eq!((seen.outcome.clone(), seen.status, seen.origin()), (Outcome::Ok, 200, Some("v1")), "{seen:?}");
    assert_eq!(v1.executed("/dribble"), 1);
}

#[tokio::test]
async fn an_answer_at_the_deadline_is_whole_whoever_gave_it() {
    let (world, _v1, v2) = canary(&[UNJUDGED, "  shield: { budget: 100% }", SHORT]).await;
    let mut client = world.client();
    for _ in 0..200 {
        assert!(client.get("/").await.is_fine());
    }
    let (mut canary, mut stable) = (0, 0);
    for nth in 0..10 {
        v2.set(Fault::Late(Duration::from_millis(980 + 5 * nth)));
        for seen in all((0..8).map(|_| ask(&world, "GET", "/bytes/300000")).collect()).await {
            assert_eq!((seen.outcome.clone(), seen.status), (Outcome::Ok, 200), "{:?}", seen.headers);
            assert_eq!(seen.body.len(), 300_000);
            assert_eq!(seen.version(), seen.origin(), "head and body are of one version");
            *(if seen.version() == Some("v1") { &mut stable } else { &mut canary }) += 1;
        }
    }
    assert!(stable > 0, "some came too late ({canary} did not)");
}

#[tokio::test]
async fn requests_that_wait_for_a_withdrawn_canary_are_answered_by_stable_at_once() {
    let (world, v1, v2) = canary(&[WHOLE, LONG]).await;
    let order = waiting(&world, &v2, "POST", "/order", 1).await;
    let asked = waiting(&world, &v2, "GET", "/page", 8).await;
    let began = Instant::now();
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    for seen in all(asked).await {
        assert_eq!((seen.status, seen.origin(), seen.version()), (200, Some("v1"), Some("v1")), "{seen:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "not when the deadline came: {:?}", began.elapsed());
    assert_eq!((v1.executed("/page"), v2.executed("/page")), (8, 8));
    assert_eq!(shielded(&world).await, 8.0);
    // What may not run twice waits on.
    assert!(!order[0].is_finished());
    v2.stop().await;
    assert_eq!(all(order).await[0].status, 502);
    assert_eq!(v1.executed("/order"), 0);
    // That was a failure of the canary; the others were not. A generation takes stock.
    world.reload_with_route(1).await;
    until_judged(&world, 1, 1).await;
}

#[tokio::test]
async fn an_answer_at_the_moment_of_the_recall_is_whole_whoever_gave_it() {
    let (world, _v1, v2) = canary(&[WHOLE, "  shield: { budget: 100% }", LONG]).await;
    let mut client = world.client();
    let (mut canary, mut stable) = (0, 0);
    for nth in 0..4 {
        // Each rollout has a budget of its own.
        for _ in 0..150 {
            assert_eq!(client.get("/").await.version(), Some("v2"));
        }
        v2.set(Fault::Held);
        let before = v2.requests();
        let asked = (0..150).map(|_| ask(&world, "GET", "/bytes/200000")).collect();
        until("they have arrived", || async { v2.requests() == before + 150 }).await;
        let abort = world.order("services/shop/rollout/abort", json!({}));
        let answers = async {
            tokio::time::sleep(Duration::from_millis(nth)).await;
            v2.tick();
        };
        tokio::join!(abort, answers);
        for seen in all(asked).await {
            assert_eq!((seen.outcome.clone(), seen.status), (Outcome::Ok, 200), "{:?}", seen.headers);
            assert_eq!(seen.body.len(), 200_000);
            assert_eq!(seen.version(), seen.origin(), "head and body are of one version");
            *(if seen.version() == Some("v1") { &mut stable } else { &mut canary }) += 1;
        }
        v2.set(Fault::None);
        world.cli(&["rollout", "start", "shop", "v2", "--again"]).await.ok();
        until("stage 1", || async { rollout(&world).await["stage"] == 1 }).await;
    }
    assert!(stable > 0 && canary > 0, "{stable} were called back, {canary} had begun");
}

#[tokio::test]
async fn a_request_whose_connection_is_still_being_made_comes_back_as_soon_as_it_is() {
    let (world, _v1, v2) = canary(&[WHOLE, "timeouts: { connect: 30s, request: 60s }"]).await;
    v2.refuse().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(v2.address).unwrap();
    // Whoever comes once this queue is full stands outside until somebody is let in.
    let listener = socket.listen(0).unwrap();
    let mut inside = Vec::new();
    while let Ok(one) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(v2.address)).await {
        inside.push(one.expect("the queue takes it"));
    }
    let asked = ask(&world, "GET", "/page");
    until("it is on its way to the canary", || async {
        world.version_status("shop", "v2").await["in_flight"]["http"] == 1
    })
    .await;
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    assert!(!asked.is_finished());
    let answers_nobody = tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Ok(one) = listener.accept().await {
            accepted.push(one);
        }
    });
    let seen = soon("an answer", asked).await.unwrap();
    assert_eq!((seen.status, seen.origin()), (200, Some("v1")), "{seen:?}");
    answers_nobody.abort();
}

#[tokio::test]
async fn a_recall_says_nothing_about_the_endpoint() {
    let mut world = World::new();
    let (v1, v2, v2b) = (world.origin("v1").await, world.origin("v2").await, world.origin("v2").await);
    let text = one_service(&[&v1, &v2, &v2b], &format!("active: v1\n{WHOLE}\n{LONG}\n{STRICT}"));
    world.start(&text).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until("stage 1", || async { rollout(&world).await["stage"] == 1 }).await;
    let is_out = async || {
        let status = world.version_status("shop", "v2").await;
        status["endpoints"].as_array().unwrap().iter().any(|endpoint| endpoint["ejected"] == true)
    };
    v2.set(Fault::Hang);
    v2b.set(Fault::Hang);
    let order = ask(&world, "POST", "/order");
    let asked = (0..4).map(|_| ask(&world, "GET", "/page")).collect();
    until("they have arrived", || async { v2.requests() + v2b.requests() == 5 }).await;
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    assert!(all(asked).await.iter().all(Seen::is_fine));
    assert!(!is_out().await, "nobody failed");
    // One failure would have been enough.
    v2.stop().await;
    v2b.stop().await;
    assert_eq!(all(vec![order]).await[0].status, 502);
    until("the endpoint that broke is out", is_out).await;
}

#[tokio::test]
async fn a_canary_that_a_guardrail_stops_gives_its_waiting_requests_back() {
    let (world, _v1, v2) = canary(&[WHOLE, LONG]).await;
    let asked = waiting(&world, &v2, "GET", "/page", 4).await;
    v2.set(Fault::Status(500));
    let mut client = world.client();
    let mut seen = 0;
    while rollout(&world).await["phase"] != "rolled_back" {
        assert!(client.get("/other").await.is_fine());
        seen += 1;
        assert!(seen < 500, "a canary that fails everything is found out");
    }
    assert!(all(asked).await.iter().all(|seen| seen.status == 200 && seen.origin() == Some("v1")));
}

#[tokio::test]
async fn what_has_begun_to_answer_is_left_to_the_drain() {
    let (world, v1, v2) = canary(&[WHOLE, LONG]).await;
    let mut events = SseClient::open(world.web(), "/sse/1").await;
    events.next().await.expect("the first event");
    let mut socket = WsClient::open(world.web(), "/ws").await;
    let body = ask(&world, "GET", "/late-body/1000");
    until("it has arrived", || async { v2.executed("/late-body/1000") == 1 }).await;
    let mut hinted = world.raw().await;
    v2.set(Fault::StallBody);
    hinted.write(b"GET /half HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    assert_eq!(hinted.head().await.expect("a head").0, 200);
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    let seen = soon("the body", body).await.unwrap();
    assert_eq!((seen.status, seen.origin(), seen.text()), (200, Some("v2"), "late\n".into()), "{seen:?}");
    v2.tick();
    assert!(events.next().await.expect("the stream goes on").contains("v2"));
    assert!(socket.who().await.starts_with("v2"));
    assert_eq!((v1.requests(), shielded(&world).await), (0, 0.0));
}

#[tokio::test]
async fn no_more_are_given_back_than_the_budget_allows() {
    let (world, _v1, v2) = canary(&[WHOLE, "  shield: { budget: 1% }", LONG]).await;
    let mut asked = waiting(&world, &v2, "GET", "/page", 14).await;
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    // Ten are free; a share of nothing is nothing.
    until("ten are answered", || async { asked.iter().filter(|one| one.is_finished()).count() == 10 }).await;
    assert_eq!(shielded(&world).await, 10.0);
    let rest: Vec<_> = asked.extract_if(.., |one| !one.is_finished()).collect();
    assert_eq!(rest.len(), 4);
    v2.stop().await;
    assert!(all(rest).await.iter().all(|seen| seen.status == 502), "the rest waited on");
    assert!(all(asked).await.iter().all(|seen| seen.status == 200 && seen.origin() == Some("v1")));
}

//! A second endpoint is asked beside the first: when, for which requests, and that a client sees one whole answer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::client::Seen;
use crate::harness::http2::H2Client;
use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;

/// A request says by a header which endpoint it is for; the other one is the second.
const BALANCE: &str = "balance: { consistent_hash: { header: x-user } }";
/// Long enough that a busy machine does not hedge by itself.
const HEDGE: &str = "retry: { hedge: { after: 100ms } }";

/// One version with two endpoints.
struct Pair {
    world: World,
    first: Origin,
    second: Origin,
    /// Sends a request to `first`, before anything goes wrong.
    key: String,
    /// Hedges until then, by outcome: a probe may have been slow.
    before: [f64; 3],
}

const OUTCOMES: [&str; 3] = ["first", "second", "neither"];

async fn hedges(world: &World, outcome: &str) -> f64 {
    world.metric("switchback_hedges_total", &[("service", "shop"), ("outcome", outcome)]).await
}

async fn pair(retry: &str) -> Pair {
    pair_with("", &format!("active: v1\n{BALANCE}\n{retry}")).await
}

async fn pair_with(above: &str, more: &str) -> Pair {
    let mut world = World::new();
    let first = Origin::instance("v1", "first", world.unused()).await;
    let second = Origin::instance("v1", "second", world.unused()).await;
    world.start(&(above.to_string() + &one_service(&[&first, &second], more))).await;
    let mut client = world.client();
    for nth in 0..64 {
        let key = format!("user-{nth}");
        let (one, two) = (first.requests(), second.requests());
        client.get_with("/probe", &[("x-user", &key)]).await;
        if (first.requests(), second.requests()) == (one + 1, two) {
            let mut before = [0.0; 3];
            for (count, outcome) in before.iter_mut().zip(OUTCOMES) {
                *count = hedges(&world, outcome).await;
            }
            return Pair { world, first, second, key, before };
        }
    }
    panic!("64 keys, and none belongs to the first endpoint");
}

impl Pair {
    async fn send(&self, client: &mut Client, method: &str, path: &str, body: &[u8]) -> Seen {
        client.send(method, path, &[("x-user", &self.key)], body).await
    }

    async fn get(&self, client: &mut Client, path: &str) -> Seen {
        self.send(client, "GET", path, b"").await
    }

    async fn hedges(&self, outcome: &str) -> f64 {
        let at = OUTCOMES.iter().position(|it| *it == outcome).expect("it is one of them");
        hedges(&self.world, outcome).await - self.before[at]
    }

    async fn all_hedges(&self) -> f64 {
        self.world.metric("switchback_hedges_total", &[]).await - self.before.iter().sum::<f64>()
    }

    fn ran(&self, path: &str) -> (u32, u32) {
        (self.first.executed(path), self.second.executed(path))
    }

    async fn until_idle(&self) {
        until("no endpoint has anything in flight", || async {
            let version = self.world.version_status("shop", "v1").await;
            let endpoints = version["endpoints"].as_array().expect("a list").clone();
            endpoints.iter().all(|endpoint| endpoint["in_flight"] == 0)
        })
        .await;
    }
}

/// A whole answer of that endpoint, to that request.
#[track_caller]
fn assert_from(seen: &Seen, instance: &str, path: &str) {
    assert_eq!((seen.outcome.clone(), seen.status), (Outcome::Ok, 200), "{path}: {seen:?}");
    assert_eq!(seen.field("x-instance"), Some(instance), "{path}");
    assert_eq!(seen.text(), format!("v1 {instance} {path}\n"));
}

#[tokio::test]
async fn who_keeps_silent_is_overtaken() {
    let more = format!("active: v1\n{BALANCE}\n{HEDGE}");
    let pair = pair_with("access_log: { to: access.log }\n", &more).await;
    pair.first.set(Fault::Hang);
    let mut client = pair.world.client();
    for nth in 0..3 {
        let path = format!("/slow-{nth}");
        let seen = pair.get(&mut client, &path).await;
        assert_from(&seen, "second", &path);
        assert!(seen.took >= Duration::from_millis(100), "the first had its time: {:?}", seen.took);
        assert_eq!(pair.ran(&path), (1, 1));
    }
    let seen = pair.send(&mut client, "HEAD", "/head", b"").await;
    assert_eq!((seen.status, seen.field("x-instance"), seen.body.len()), (200, Some("second"), 0));
    assert_eq!(client.opened, 1, "the client's connection does not suffer");
    assert_eq!((pair.hedges("second").await, pair.all_hedges().await), (4.0, 4.0));
    // Neither a retry nor a failure.
    assert_eq!(pair.world.metric("switchback_retries_total", &[]).await, 0.0);
    assert_eq!(pair.world.metric("switchback_request_errors_total", &[("version", "v1")]).await, 0.0);
    until("the losers' connections are closed", || async { pair.first.open() == 0 }).await;
    pair.until_idle().await;
    let log = pair.world.path("access.log");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    until("all is logged", || async { lines().contains("/head") }).await;
    let lines = lines();
    let line = lines.lines().find(|line| line.contains("/slow-0")).expect("it is logged");
    let line: Value = serde_json::from_str(line).expect("a line is JSON");
    assert_eq!(line["endpoint"], pair.second.address.to_string(), "{line}");
    assert_eq!((&line["attempts"], &line["hedge"]), (&json!(2), &json!("second")), "{line}");
    assert!(lines.lines().any(|line| line.contains("/probe") && !line.contains("hedge")), "{lines}");
}

#[tokio::test]
async fn the_first_may_still_win() {
    let pair = pair(HEDGE).await;
    pair.first.set(Fault::Held);
    pair.second.set(Fault::Hang);
    let mut client = pair.world.client();
    let asked = async {
        let seen = pair.get(&mut client, "/x").await;
        assert_from(&seen, "first", "/x");
    };
    let both = async {
        until("both are asked", || async { pair.ran("/x") == (1, 1) }).await;
        pair.first.tick();
    };
    tokio::join!(asked, both);
    assert_eq!((pair.hedges("first").await, pair.all_hedges().await), (1.0, 1.0));
    until("the second's connection is closed", || async { pair.second.open() == 0 }).await;
    pair.until_idle().await;
    // What follows on the client's connection is served as ever.
    pair.first.set(Fault::None);
    let seen = pair.get(&mut client, "/after").await;
    assert_from(&seen, "first", "/after");
    assert_eq!((client.opened, pair.ran("/after")), (1, (1, 0)));
}

#[tokio::test]
async fn only_what_may_run_twice_and_has_no_body_is_hedged() {
    let pair = pair("retry: { methods: idempotent, hedge: { after: 30ms } }").await;
    pair.first.set(Fault::Late(Duration::from_millis(150)));
    let mut client = pair.world.client();
    for (method, body) in [("POST", &b"order"[..]), ("PUT", b"x"), ("DELETE", b""), ("OPTIONS", b""), ("GET", b"body")]
    {
        let path = format!("/{method}");
        let seen = pair.send(&mut client, method, &path, body).await;
        assert_eq!((seen.status, seen.field("x-instance")), (200, Some("first")), "{method}");
        assert_eq!(pair.ran(&path), (1, 0), "{method}");
    }
    let mut socket = WsClient::try_open(pair.world.web(), "/ws", &[("x-user", &pair.key)]).await.expect("it opens");
    socket.ping_pong().await.expect("it works");
    assert_eq!(pair.all_hedges().await, 0.0);
    // The counterpart: without a body it is.
    assert_eq!(pair.get(&mut client, "/none").await.status, 200);
    assert_eq!(pair.all_hedges().await, 1.0);
}

#[tokio::test]
async fn a_second_that_is_no_good_makes_no_answer_worse() {
    let pair = pair(HEDGE).await;
    let mut client = pair.world.client();
    let half = Fault::BytesKeep(b"HTTP/1.1 2".to_vec());
    let garbage = Fault::Bytes(b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec());
    let faults = [half, garbage, Fault::Status(503), Fault::Reset, Fault::CloseUnanswered, Fault::Hang];
    for (nth, fault) in faults.into_iter().enumerate() {
        pair.first.set(Fault::Held);
        pair.second.set(fault.clone());
        let path = format!("/x-{nth}");
        let (seen, ()) = tokio::join!(pair.get(&mut client, &path), async {
            until("both are asked", || async { pair.ran(&path) == (1, 1) }).await;
            // Whatever the second says has arrived long before this is noticed.
            tokio::time::sleep(Duration::from_millis(20)).await;
            pair.first.tick();
        });
        assert_from(&seen, "first", &path);
    }
    // Nobody is there at all.
    pair.second.stop().await;
    pair.first.set(Fault::Late(Duration::from_millis(300)));
    let seen = pair.get(&mut client, "/alone").await;
    assert_from(&seen, "first", "/alone");
    assert_eq!((pair.hedges("first").await, pair.all_hedges().await), (7.0, 7.0));
    assert_eq!(client.opened, 1);
    pair.until_idle().await;
}

#[tokio::test]
async fn a_first_that_dies_leaves_the_second() {
    let pair = pair(HEDGE).await;
    let mut client = pair.world.client();
    pair.first.set(Fault::Held);
    pair.second.set(Fault::Held);
    let (seen, ()) = tokio::join!(pair.get(&mut client, "/x"), async {
        until("both are asked", || async { pair.ran("/x") == (1, 1) }).await;
        pair.first.stop().await;
        pair.second.tick();
    });
    assert_from(&seen, "second", "/x");
    pair.first.reopen().await;
    // With both dead there is nobody to ask, and one clean answer.
    let pair = self::pair(HEDGE).await;
    pair.first.set(Fault::Held);
    pair.second.set(Fault::Held);
    let mut client = pair.world.client();
    let (seen, ()) = tokio::join!(pair.get(&mut client, "/y"), async {
        until("both are asked", || async { pair.ran("/y") == (1, 1) }).await;
        tokio::join!(pair.first.stop(), pair.second.stop());
    });
    assert_eq!((seen.outcome, seen.status), (Outcome::Ok, 502));
    assert_eq!((pair.hedges("neither").await, pair.all_hedges().await), (1.0, 1.0));
    pair.until_idle().await;
}

#[tokio::test]
async fn an_answer_that_has_begun_is_waited_for() {
    let pair = pair("retry: { hedge: { after: 150ms } }").await;
    // Its first byte comes at once, its last after far more than the wait.
    pair.first.set(Fault::DribbleHead(Duration::from_millis(5)));
    let mut client = pair.world.client();
    let seen = pair.get(&mut client, "/x").await;
    assert_eq!((seen.outcome, seen.status, seen.body), (Outcome::Ok, 200, b"ok".to_vec()));
    assert!(seen.took > Duration::from_millis(300), "{:?}", seen.took);
    assert_eq!((pair.all_hedges().await, pair.ran("/x")), (0.0, (1, 0)));
    // A body that takes its time is no reason either.
    pair.first.set(Fault::None);
    let seen = pair.get(&mut client, "/late-body/300").await;
    assert_eq!(seen.outcome, Outcome::Ok);
    assert_eq!((seen.field("x-instance"), seen.text()), (Some("first"), "late\n".into()));
    assert_eq!(pair.all_hedges().await, 0.0);
}

/// Both endpoints need about as long as the wait is, so that every moment at which one could overtake the other is met.
#[tokio::test]
async fn answers_that_meet_are_never_mixed() {
    let pair = pair_with("", "active: v1\nretry: { budget: 100%, hedge: { after: 6ms } }").await;
    let mut tasks = JoinSet::new();
    for task in 0..6_u64 {
        let mut client = pair.world.client();
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for nth in 0..50_u64 {
                // Whatever the order, all of them.
                let millis = (nth * 7 + task * 3) % 14;
                let path = match nth % 5 {
                    0 => format!("/bytes/{}", 40_000 + nth),
                    1 => format!("/chunked/{}", 40_000 + nth),
                    _ => format!("/slow/{millis}?{task}-{nth}"),
                };
                seen.push((client.get(&path).await, path));
            }
            assert_eq!(client.opened, 1);
            seen
        });
    }
    let mut winners = [0, 0];
    while let Some(seen) = tasks.join_next().await {
        for (seen, path) in seen.expect("a client does not panic") {
            let instance = seen.field("x-instance").expect("an endpoint answered").to_string();
            winners[usize::from(instance == "second")] += 1;
            if path.starts_with("/slow") {
                assert_from(&seen, &instance, &path);
                continue;
            }
            let wanted: u64 = path.rsplit('/').next().and_then(|it| it.parse().ok()).expect("a length");
            let byte = if path.starts_with("/bytes") { b'x' } else { b'c' };
            assert_eq!((seen.outcome.clone(), seen.body_bytes), (Outcome::Ok, wanted), "{path}");
            assert!(seen.body.iter().all(|it| *it == byte), "{path}");
        }
    }
    assert!(winners.iter().all(|count| *count > 0), "{winners:?}");
    assert!(pair.all_hedges().await > 20.0, "some had to be hedged: {}", pair.all_hedges().await);
    pair.until_idle().await;
}

#[tokio::test]
async fn only_a_share_of_the_requests_is_hedged() {
    let pair = pair("retry: { budget: 1%, hedge: { after: 1ms } }").await;
    for origin in [&pair.first, &pair.second] {
        origin.set(Fault::Late(Duration::from_millis(15)));
    }
    let mut client = pair.world.client();
    let begun = std::time::Instant::now();
    for _ in 0..90 {
        assert_eq!(pair.get(&mut client, "/x").await.status, 200);
    }
    let hedges = pair.all_hedges().await;
    // The few that are always allowed, of one thread, in ten seconds.
    let most = 50.0 * (1.0 + (begun.elapsed().as_secs_f64() / 10.0).floor());
    assert!(hedges >= 20.0 && hedges <= most, "{hedges}");
    let (first, second) = pair.ran("/x");
    assert_eq!(f64::from(first + second), 90.0 + hedges);
    let denied = pair.world.metric("switchback_retries_denied_total", &[]).await;
    assert!(denied >= 10.0 && hedges + denied <= 90.0, "{hedges} and {denied}");
}

#[tokio::test]
async fn nobody_else_no_hedge() {
    let mut world = World::new();
    let only = world.origin("v1").await;
    world.start(&one_service(&[&only], "active: v1\nretry: { hedge: { after: 1ms } }")).await;
    only.set(Fault::Late(Duration::from_millis(60)));
    assert_eq!(world.get("/x").await.status, 200);
    assert_eq!((world.metric("switchback_hedges_total", &[]).await, only.requests()), (0.0, 1));
    assert_eq!(world.metric("switchback_retries_denied_total", &[]).await, 0.0, "it was not the budget");
    // The other one is full.
    let full = world.origin("v1").await;
    let text =
        one_service(&[&only], "active: v1\nretry: { hedge: { after: 1ms } }\nhold: { max_wait: 5s, max_requests: 9 }");
    let both = format!("[\"{}\", {{ address: \"{}\", max_connections: 1 }}]", only.address, full.address);
    let text = text.replace(&format!("[\"{}\"]", only.address), &both);
    world.edit_and_wait(|_| world.preamble() + &text).await;
    full.set(Fault::Held);
    // A request that is not hedged itself takes the place there.
    let address = world.web();
    let held = tokio::spawn(async move {
        let mut client = Client::new(address);
        for _ in 0..4 {
            assert_eq!(client.post("/held", b"x").await.status, 200);
        }
    });
    until("it is there", || async { full.executed("/held") == 1 }).await;
    let before = only.requests();
    for _ in 0..4 {
        assert_eq!(world.get("/more").await.status, 200);
    }
    assert_eq!((only.requests() - before, full.executed("/more")), (4, 0));
    full.set(Fault::None);
    full.tick();
    held.await.expect("a client does not panic");
}

#[tokio::test]
async fn a_client_that_leaves_ends_both() {
    let pair = pair(HEDGE).await;
    pair.first.set(Fault::Hang);
    pair.second.set(Fault::Hang);
    let mut raw = pair.world.raw().await;
    let request = format!("GET /x HTTP/1.1\r\nhost: shop.test\r\nx-user: {}\r\n\r\n", pair.key);
    raw.write(request.as_bytes()).await.expect("it is sent");
    until("both are asked", || async { pair.ran("/x") == (1, 1) }).await;
    drop(raw);
    until("both are rid of it", || async { pair.first.open() + pair.second.open() == 0 }).await;
    pair.until_idle().await;
    assert_eq!((pair.hedges("neither").await, pair.all_hedges().await), (1.0, 1.0));
}

#[tokio::test]
async fn requests_that_wait_behind_a_hedged_one_are_served_in_order() {
    let pair = pair(HEDGE).await;
    pair.first.set(Fault::Hang);
    let mut raw = pair.world.raw().await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\nx-user: {}\r\n\r\n", pair.key);
    let all = ["/a", "/b", "/c"].map(one).concat();
    raw.write(all.as_bytes()).await.expect("it is sent");
    for path in ["/a", "/b", "/c"] {
        let seen = raw.answer().await;
        assert_from(&seen, "second", path);
    }
    assert_eq!(pair.hedges("second").await, 3.0);
}

#[tokio::test]
async fn streams_are_hedged_like_requests() {
    let pair = pair(HEDGE).await;
    pair.first.set(Fault::Hang);
    let before = pair.first.requests();
    let client = H2Client::connect(pair.world.web()).await;
    let fields = [("x-user", pair.key.as_str())];
    let all = futures_util::future::join_all((0..5).map(|nth| {
        let path = format!("/h2-{nth}");
        let (client, fields) = (&client, &fields);
        async move { (client.get_with(&path, fields).await, path) }
    }))
    .await;
    for (seen, path) in all {
        assert_eq!((seen.is_whole(), seen.status), (true, 200), "{path}: {seen:?}");
        assert_eq!(seen.text(), format!("v1 second {path}\n"));
    }
    // So many at once are not all for one endpoint (bounded load).
    let hedges = pair.hedges("second").await;
    assert_eq!((hedges, pair.all_hedges().await), (pair.first.requests() as f64 - before as f64, hedges));
    assert!(hedges >= 2.0, "{hedges}");
    assert!(!client.is_closed());
    pair.until_idle().await;
}

#[tokio::test]
async fn connections_are_used_again_unless_they_raced() {
    let pair = pair_with("", "active: v1\nretry: { budget: 100%, hedge: { after: 100ms } }").await;
    let before = |origin: &Origin| origin.shared.connections.load(std::sync::atomic::Ordering::SeqCst);
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let mut client = pair.world.client();
        tasks.spawn(async move {
            for nth in 0..250 {
                // One of fifty is slow.
                let path =
                    if nth % 50 == 7 { format!("/slow/180?{task}-{nth}") } else { format!("/fast?{task}-{nth}") };
                let seen = client.get(&path).await;
                let instance = seen.field("x-instance").expect("an endpoint answered").to_string();
                assert_from(&seen, &instance, &path);
            }
            assert_eq!(client.opened, 1);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("every answer is right");
    }
    let hedges = pair.all_hedges().await;
    assert!(hedges >= 10.0, "{hedges}");
    // Each race costs the two connections it ran on; the rest is what four clients need at once.
    let opened = (before(&pair.first) + before(&pair.second)) as f64;
    assert!(opened <= 2.0 * hedges + 24.0, "{opened} connections, {hedges} hedges");
    pair.until_idle().await;
}

/// v2, with two endpoints, is the canary and gets everything.
async fn canary(after: &str, more: &str) -> (World, Origin, [Origin; 2]) {
    let mut world = World::new();
    let (v1, one, two) = (world.origin("v1").await, world.origin("v2").await, world.origin("v2").await);
    let more = format!("active: v1\nretry: {{ hedge: {{ after: {after} }} }}\n{more}");
    world.start(&one_service(&[&v1, &one, &two], &more)).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    (world, v1, [one, two])
}

#[tokio::test]
async fn a_canary_is_hedged_by_itself() {
    let judged = "rollout:\n  stages: [50%, 100%]\n  promote_when: { hold: 1h }\n  guardrails: { errors: off }";
    let (world, v1, canary) = canary("20ms", judged).await;
    v1.set(Fault::Late(Duration::from_millis(60)));
    canary.iter().for_each(|origin| origin.set(Fault::Late(Duration::from_millis(60))));
    let plan = Plan { keep_alive: 4, fresh: 0, think: Duration::ZERO, ..Plan::default() };
    let load = Load::start(world.web(), &plan);
    load.more(60).await;
    let report = load.stop().await;
    report.assert_unbroken();
    let hedges = |version: &'static str| {
        let world = &world;
        async move { world.metric("switchback_hedges_total", &[("version", version)]).await }
    };
    let of_canary = hedges("v2").await;
    assert!(of_canary > 5.0, "{of_canary}");
    assert_eq!(hedges("v1").await, 0.0, "a version with one endpoint has nobody to ask");
    let ran = canary.iter().map(Origin::requests).sum::<u64>();
    assert_eq!(ran, report.from("v2") as u64 + of_canary as u64, "nothing of the canary's went to stable");
    assert_eq!(v1.requests(), report.from("v1") as u64);
    // The judge counts requests, not endpoints asked.
    until("the judge knows of all", || async {
        rollout(&world).await["meters"]["canary_requests"].as_u64() == Some(report.from("v2") as u64)
    })
    .await;
}

#[tokio::test]
async fn what_fails_behind_a_hedge_is_judged() {
    let judged = "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }\n  guardrails: { errors: off }";
    let (world, _v1, canary) = canary("100ms", judged).await;
    canary.iter().for_each(|origin| origin.set(Fault::Held));
    let mut client = world.client();
    let asked = tokio::spawn(async move { client.get("/x").await });
    let ran = || canary.iter().map(|origin| origin.executed("/x")).collect::<Vec<_>>();
    until("one is asked", || async { ran().iter().sum::<u32>() >= 1 }).await;
    until("both are asked", || async { ran() == [1, 1] }).await;
    // Which one was first does not matter: the one that dies has failed, the other one answers.
    canary[0].stop().await;
    canary[1].tick();
    let seen = asked.await.expect("a client does not panic");
    assert_eq!((seen.status, seen.version()), (200, Some("v2")));
    until("one of two attempts failed", || async {
        let meters = rollout(&world).await["meters"].clone();
        meters["canary_failures"] == 1 && meters["canary_requests"] == 2
    })
    .await;
}

#[tokio::test]
async fn a_canary_that_goes_back_is_left_by_both() {
    let shield =
        "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }\n  shield: true\n  guardrails: { errors: off }";
    let (world, _v1, canary) = canary("100ms", shield).await;
    canary.iter().for_each(|origin| origin.set(Fault::Hang));
    let mut client = world.client();
    let asked = tokio::spawn(async move { client.get("/x").await });
    until("both are asked", || async { canary.iter().all(|origin| origin.executed("/x") == 1) }).await;
    world.order("services/shop/rollout/abort", json!({})).await;
    let seen = soon("the answer of stable", asked).await.expect("a client does not panic");
    assert_eq!((seen.status, seen.version(), seen.origin()), (200, Some("v1"), Some("v1")));
    until("the canary's connections are closed", || async { canary.iter().all(|origin| origin.open() == 0) }).await;
    assert_eq!(world.metric("switchback_hedges_total", &[("version", "v2"), ("outcome", "neither")]).await, 1.0);
}

#[tokio::test]
async fn one_attempt_of_two_is_one_attempt_for_its_timeout() {
    let retry = "retry: { attempts: 2, on: [connect, timeout], per_try_timeout: 800ms, hedge: { after: 30ms } }";
    let mut world = World::new();
    let all = [world.origin("v1").await, world.origin("v1").await, world.origin("v1").await];
    world.start(&one_service(&all.iter().collect::<Vec<_>>(), &format!("active: v1\n{retry}"))).await;
    all.iter().for_each(|origin| origin.set(Fault::Hang));
    let mut client = world.client();
    let asked = tokio::spawn(async move { client.get("/x").await });
    let ran = || all.iter().filter(|origin| origin.executed("/x") > 0).count();
    until("two are asked", || async { ran() == 2 }).await;
    let third = all.iter().find(|origin| origin.executed("/x") == 0);
    if let Some(third) = third {
        third.set(Fault::None);
    }
    let seen = asked.await.expect("a client does not panic");
    assert_eq!((seen.status, all.iter().map(|origin| origin.executed("/x")).sum::<u32>()), (200, 3));
    assert_eq!(world.metric("switchback_retries_total", &[("reason", "timeout")]).await, 1.0);
    assert_eq!(world.metric("switchback_hedges_total", &[("outcome", "neither")]).await, 1.0);
}

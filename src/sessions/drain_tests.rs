use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::endpoints::testing;
use crate::outcome::CodesRegistry;
use crate::routing::Thread;
use crate::sessions::Kind;
use crate::sessions::connections::{Connection, Cut, Listed};

const THREAD: Thread = Thread(0);

struct World {
    drainer: Arc<Drainer>,
    connections: Arc<Connections>,
    events: Events,
    start: Instant,
}

fn world() -> World {
    let (connections, events) = (Connections::new(1), Events::default());
    let drainer = Drainer::start(Handle::current(), connections.clone(), events.clone());
    World { drainer, connections, events, start: Instant::now() }
}

fn core() -> Arc<VersionCore> {
    testing::version(&[], 1).core.clone()
}

/// requests 30 s, streams 100 s, sessions 200 s, spread 10 s.
fn place(core: &Arc<VersionCore>, share: Share, pinning: bool) -> Place {
    let policy = Drain {
        requests: Duration::from_secs(30),
        streams: Duration::from_secs(100),
        sessions: Duration::from_secs(200),
        reconnect_spread: Duration::from_secs(10),
    };
    Place { core: core.clone(), share, policy, pinning }
}

/// A client with one exchange, which it ends when it is cut or told to.
struct Client {
    listed: Arc<Listed>,
    core: Arc<VersionCore>,
    /// Seconds after the start at which it was cut; `u64::MAX` if it was not.
    cut_at: Arc<AtomicU64>,
    cut_how: Arc<OnceLock<Cut>>,
    _task: AbortOnDropHandle<()>,
}

impl World {
    async fn client(&self, core: &Arc<VersionCore>, kind: Kind) -> Client {
        let listed = Arc::new(self.connections.add(Arc::new(Connection::new(THREAD, "web".into()))));
        core.in_flight.begin(THREAD, Kind::Http);
        listed.connection.begin(core.slot, 0);
        core.in_flight.becomes(THREAD, Kind::Http, kind);
        listed.connection.becomes(kind);
        let (cut_at, cut_how) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(OnceLock::new()));
        let task = tokio::spawn({
            let (listed, core, start) = (listed.clone(), core.clone(), self.start);
            let (cut_at, cut_how) = (cut_at.clone(), cut_how.clone());
            async move {
                let cut = std::future::poll_fn(|context| {
                    listed.connection.register(context.waker());
                    listed.connection.is_cut().map_or(Poll::Pending, Poll::Ready)
                });
                cut_how.set(cut.await).expect("it is cut once");
                cut_at.store(start.elapsed().as_secs(), Ordering::Relaxed);
                listed.connection.end();
                core.in_flight.end(THREAD, kind);
            }
        });
        Client { listed, core: core.clone(), cut_at, cut_how, _task: AbortOnDropHandle::new(task) }
    }

    fn loses(&self, core: &Arc<VersionCore>, to: Share, pinning: bool) {
        self.drainer.moved(&[place(core, Share::Weight(1), pinning)], &[place(core, to, pinning)]);
    }

    /// Waits until the (only) drain is finished; seconds after the start.
    async fn finished(&self) -> u64 {
        let (_, mut news) = self.events.subscribe(0);
        while !self.status().finished {
            news.recv().await.expect("an event");
        }
        self.start.elapsed().as_secs()
    }

    fn status(&self) -> DrainStatus {
        self.drainer.status().pop().expect("a drain")
    }

    async fn at(&self, secs: u64) {
        tokio::time::sleep_until(self.start + Duration::from_secs(secs)).await;
    }
}

impl Client {
    fn ends(&self) {
        let kind = self.listed.connection.current().kind();
        self.listed.connection.end();
        self.core.in_flight.end(THREAD, kind);
    }

    fn cut_at(&self) -> u64 {
        self.cut_at.load(Ordering::Relaxed)
    }

    fn cut_how(&self) -> Option<Cut> {
        self.cut_how.get().copied()
    }
}

#[tokio::test(start_paused = true)]
async fn with_nothing_in_flight_a_drain_finishes_at_once() {
    let world = world();
    world.loses(&core(), Share::Draining, false);
    assert_eq!(world.finished().await, 0);
    assert_eq!(world.status().cut, 0);
}

#[tokio::test(start_paused = true)]
async fn i11_a_drain_ends_exactly_when_the_last_exchange_ends() {
    let (world, core) = (world(), core());
    let (first, last) = (world.client(&core, Kind::Http).await, world.client(&core, Kind::WebSocket).await);
    world.loses(&core, Share::Off, false);
    world.at(7).await;
    first.ends();
    world.at(20).await;
    assert!(!world.status().finished);
    assert_eq!(world.status().remaining[&Kind::WebSocket], 1);
    last.ends();
    let before = Instant::now();
    world.finished().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!((world.status().cut, first.cut_at(), last.cut_at()), (0, u64::MAX, u64::MAX));
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_each_kind_is_cut_and_streams_are_spread() {
    let (world, core, other) = (world(), core(), core());
    let request = world.client(&core, Kind::Http).await;
    let mut streams = Vec::new();
    for nth in 0..10 {
        streams.push(world.client(&core, if nth % 2 == 0 { Kind::Sse } else { Kind::WebSocket }).await);
    }
    let bystander = world.client(&other, Kind::Http).await;
    world.loses(&core, Share::Draining, false);
    assert_eq!(world.finished().await, 109);
    assert_eq!((request.cut_at(), request.cut_how()), (30, Some(Cut::DrainDeadline)));
    let mut cuts: Vec<u64> = streams.iter().map(Client::cut_at).collect();
    cuts.sort_unstable();
    assert_eq!(cuts, (100..110).collect::<Vec<_>>());
    assert_eq!(world.status().cut, 11);
    assert_eq!(bystander.cut_at(), u64::MAX, "another version is not touched");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_gets_weight_again_is_not_drained_any_more() {
    let (world, core) = (world(), core());
    let request = world.client(&core, Kind::Http).await;
    world.loses(&core, Share::Draining, true);
    world.at(10).await;
    world.drainer.moved(&[place(&core, Share::Draining, true)], &[place(&core, Share::Weight(5), true)]);
    world.at(1000).await;
    assert_eq!((request.cut_at(), world.drainer.status().len()), (u64::MAX, 0));
    assert!(!core.pins_ended.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn pinned_clients_may_come_until_the_sessions_deadline() {
    let (world, core) = (world(), core());
    let old = world.client(&core, Kind::Http).await;
    world.loses(&core, Share::Draining, true);
    world.at(190).await;
    assert_eq!(old.cut_at(), 30);
    assert!(!core.pins_ended.load(Ordering::Relaxed));
    let late = world.client(&core, Kind::Http).await;
    world.at(201).await;
    assert!(core.pins_ended.load(Ordering::Relaxed));
    assert_eq!(late.cut_at(), u64::MAX, "it has its own 30 s from the end of the sessions");
    assert_eq!(world.finished().await, 230);
    assert_eq!((late.cut_at(), world.status().cut), (230, 2));
}

#[tokio::test(start_paused = true)]
async fn without_a_client_in_flight_a_pinned_drain_ends_with_its_sessions() {
    let (world, core) = (world(), core());
    world.loses(&core, Share::Draining, true);
    assert_eq!(world.finished().await, 200);
    assert!(core.pins_ended.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn off_ends_the_sessions_of_a_draining_version() {
    let (world, core) = (world(), core());
    let request = world.client(&core, Kind::Http).await;
    world.loses(&core, Share::Draining, true);
    world.at(10).await;
    world.drainer.moved(&[place(&core, Share::Draining, true)], &[]);
    world.at(11).await;
    assert!(!world.status().finished && world.status().sessions_until.is_none());
    request.ends();
    let before = Instant::now();
    world.finished().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_pinned_clients_began_keeps_its_time_when_the_version_goes_off() {
    let (world, core) = (world(), core());
    world.loses(&core, Share::Draining, true);
    world.at(150).await;
    let late = world.client(&core, Kind::Sse).await;
    world.drainer.moved(&[place(&core, Share::Draining, true)], &[place(&core, Share::Off, true)]);
    assert_eq!(world.finished().await, 250);
    assert_eq!(late.cut_at(), 250);
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_place_did_not_change_is_not_touched() {
    let (world, core) = (world(), core());
    let request = world.client(&core, Kind::Http).await;
    let same = [place(&core, Share::Weight(1), false)];
    for _ in 0..100 {
        world.drainer.moved(&same, &same);
        world.drainer.moved(&same, &[place(&core, Share::Weight(9), false)]);
    }
    world.at(1000).await;
    assert_eq!((request.cut_at(), world.drainer.status().len()), (u64::MAX, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_began_on_the_old_generation_after_the_drain_ended_is_still_cut() {
    let (world, core) = (world(), core());
    world.loses(&core, Share::Off, false);
    assert_eq!(world.finished().await, 0);
    let late = world.client(&core, Kind::Http).await;
    assert!(!world.status().finished);
    world.at(31).await;
    assert_eq!(late.cut_at(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_cut_does_not_hold_the_drain_up() {
    let (world, core) = (world(), core());
    core.in_flight.begin(THREAD, Kind::Http);
    world.loses(&core, Share::Off, false);
    let finished = world.finished().await;
    assert!((100..=110).contains(&finished), "{finished}");
    assert_eq!(world.status().remaining[&Kind::Http], 1);
}

#[tokio::test(start_paused = true)]
async fn finished_drains_are_kept_but_not_for_ever() {
    let world = world();
    let cores: Vec<_> = (0..300).map(|_| core()).collect();
    for core in &cores {
        world.loses(core, Share::Off, false);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.drainer.status().len(), FINISHED_MAX);
}

/// `shop` with a `v1`: requests 30 s, streams 600 s, spread 30 s; `api`: 5 s, 20 s, 10 s.
fn two_services() -> (Arc<Snapshot>, [Arc<VersionCore>; 2]) {
    let mut api = testing::compiled("api", &[("v1", &[3])], false);
    let secs = Duration::from_secs;
    api.service.drain = Drain { requests: secs(5), streams: secs(20), sessions: secs(20), reconnect_spread: secs(10) };
    let shop = testing::compiled("shop", &[("v1", &[1])], false);
    let snapshot = testing::snapshot(vec![shop, api], None, &Arc::new(CodesRegistry::new(1)));
    let cores = ["shop", "api"].map(|service| {
        let service = snapshot.runtime.named(service).expect("there");
        service.version_named("v1").expect("there").core.clone()
    });
    (snapshot, cores)
}

impl World {
    async fn clients<const COUNT: usize>(&self, core: &Arc<VersionCore>, kind: Kind) -> [Client; COUNT] {
        let mut clients = Vec::new();
        for _ in 0..COUNT {
            clients.push(self.client(core, kind).await);
        }
        clients.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
    }

    fn leave(&self, live: &Snapshot, by_service: bool, comers: u64, by: u64) -> Leaving {
        let by = self.start + Duration::from_secs(by);
        self.drainer.leave(live, Going { by_service, comers: Duration::from_secs(comers), by })
    }
}

fn ends<const COUNT: usize>(clients: &[Client; COUNT]) -> [u64; COUNT] {
    let mut ends = [0; COUNT];
    for (end, client) in ends.iter_mut().zip(clients) {
        *end = client.cut_at();
    }
    ends.sort_unstable();
    ends
}

#[tokio::test(start_paused = true)]
async fn a_retired_process_gives_requests_all_its_time_and_streams_what_their_service_says() {
    let (world, (live, [shop, api])) = (world(), two_services());
    let requests = [world.client(&shop, Kind::Http).await, world.client(&api, Kind::Http).await];
    let on_api: [Client; 2] = world.clients(&api, Kind::Sse).await;
    let on_shop: [Client; 3] = world.clients(&shop, Kind::WebSocket).await;
    let [finishes] = world.clients(&shop, Kind::Grpc).await;
    let leaving = world.leave(&live, true, 0, 300);
    world.at(19).await;
    finishes.ends();
    world.at(1_000).await;
    assert_eq!(requests.map(|one| (one.cut_at(), one.cut_how())), [(300, Some(Cut::Shutdown)); 2]);
    assert_eq!(ends(&on_api), [20, 25]);
    assert_eq!(ends(&on_shop), [280, 290, 300], "the streams of `shop` would have longer than the process");
    assert_eq!(finishes.cut_at(), u64::MAX, "what ends by itself is never cut");
    assert_eq!(leaving.cuts(), 7);
    assert_eq!(world.drainer.status(), [], "no version lost its place");
    assert!(!shop.pins_ended.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn who_comes_on_a_kept_connection_has_the_same_times_from_the_end_of_the_linger_on() {
    let (world, (live, [_, api])) = (world(), two_services());
    let early: [Client; 5] = world.clients(&api, Kind::Sse).await;
    let _leaving = world.leave(&live, true, 3, 1_000);
    world.at(2).await;
    let late: [Client; 2] = world.clients(&api, Kind::WebSocket).await;
    let request = world.client(&api, Kind::Http).await;
    world.at(1_001).await;
    assert_eq!(ends(&early), [20, 22, 24, 26, 28], "whose end is planned is not planned again");
    assert_eq!((ends(&late), request.cut_at()), ([23, 28], 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_stopped_gives_requests_all_its_time_and_spreads_its_streams_over_the_end() {
    let (world, (live, [shop, api])) = (world(), two_services());
    let requests = [world.client(&shop, Kind::Http).await, world.client(&api, Kind::Http).await];
    let on_shop: [Client; 4] = world.clients(&shop, Kind::Sse).await;
    let on_api: [Client; 2] = world.clients(&api, Kind::WebSocket).await;
    let _leaving = world.leave(&live, false, 0, 40);
    world.at(1_000).await;
    assert_eq!(requests.map(|one| one.cut_at()), [40, 40]);
    assert_eq!(ends(&on_shop), [25, 30, 35, 40], "30 s are more than half of the time");
    assert_eq!(ends(&on_api), [35, 40], "its 20 s are for when the version goes and the process stays");
}

#[tokio::test(start_paused = true)]
async fn of_two_orders_the_earlier_ends_what_runs_and_it_counts_once() {
    let (world, (live, [shop, api])) = (world(), two_services());
    let (on_shop, on_api) = (world.client(&shop, Kind::Sse).await, world.client(&api, Kind::Sse).await);
    world.drainer.moved(&[place(&api, Share::Weight(1), false)], &[]);
    let first = world.leave(&live, true, 0, 500);
    world.at(15).await;
    let second = world.leave(&live, false, 0, 35);
    world.at(600).await;
    assert_eq!((on_api.cut_at(), on_shop.cut_at()), (20, 35));
    assert_eq!((first.cuts(), second.cuts()), (1, 1));
    assert_eq!(world.status().cut, 0, "the version that lost its place had 100 s");
}

/// Looks, when it is woken, at how many were cut.
struct Looks {
    leaving: Leaving,
    seen: AtomicU64,
}

impl std::task::Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.seen.store(self.leaving.cuts() as u64, Ordering::Relaxed);
    }
}

/// Whoever sees that an exchange was ended counts it with the drain, and not with what runs.
#[tokio::test(start_paused = true)]
async fn what_is_cut_is_counted_before_anybody_can_see_it() {
    let (world, (live, [shop, _])) = (world(), two_services());
    let client = world.client(&shop, Kind::Sse).await;
    let looks = Arc::new(Looks { leaving: world.leave(&live, false, 0, 40), seen: AtomicU64::new(u64::MAX) });
    world.at(1).await;
    client.listed.connection.register(&looks.clone().into());
    world.at(41).await;
    assert_eq!((looks.leaving.cuts(), looks.seen.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_version_that_is_not_live_any_more_is_ended_too() {
    let (world, (live, _), gone) = (world(), two_services(), core());
    let streams: [Client; 2] = world.clients(&gone, Kind::Sse).await;
    world.loses(&gone, Share::Off, false);
    let leaving = world.leave(&live, false, 0, 40);
    world.at(41).await;
    assert_eq!((ends(&streams), leaving.cuts()), ([35, 40], 2));
}

#[tokio::test(start_paused = true)]
async fn a_publish_drains_what_it_took_the_place_of_and_nothing_else() {
    let world = world();
    let codes = Arc::new(CodesRegistry::new(1));
    let shop = || testing::compiled("shop", &[("v1", &[1]), ("v2", &[2])], false);
    let api = || testing::compiled("api", &[("v1", &[3]), ("v2", &[4])], false);
    let core = |snapshot: &Snapshot, service: &str, version: &str| {
        let service = snapshot.runtime.named(service).expect("there");
        service.version_named(version).expect("there").core.clone()
    };
    // `api` comes first by name; its split is the one that `reweighted` changes.
    let first = testing::snapshot(vec![shop(), api()], None, &codes);
    let (shop_v1, api_v1) = (core(&first, "shop", "v1"), core(&first, "api", "v1"));
    let on_shop = world.client(&shop_v1, Kind::WebSocket).await;
    let on_api = world.client(&api_v1, Kind::WebSocket).await;

    let second = testing::reweighted(&first, vec![Share::Draining, Share::Weight(1)]);
    world.drainer.published(&first, &second);
    assert_eq!((world.status().service.as_str(), world.drainer.status().len()), ("api", 1));
    let third = testing::reweighted(&second, vec![Share::Weight(3), Share::Weight(1)]);
    world.drainer.published(&second, &third);
    assert_eq!(world.drainer.status(), []);

    // `shop` loses v1 by a bad edit, the edit is taken back, and the stream has noticed nothing.
    let fourth =
        testing::snapshot(vec![testing::compiled("shop", &[("v2", &[2])], false), api()], Some(&third), &codes);
    world.drainer.published(&third, &fourth);
    assert_eq!((world.status().version.as_str(), world.status().remaining[&Kind::WebSocket]), ("v1", 1));
    world.at(60).await;
    let fifth = testing::snapshot(vec![shop(), api()], Some(&fourth), &codes);
    world.drainer.published(&fourth, &fifth);
    assert_eq!(core(&fifth, "shop", "v1").slot, shop_v1.slot);
    // v2 had its place while v1 was away; nothing runs on it.
    assert_eq!(world.status().version, "v2");
    world.at(100_000).await;
    assert_eq!((on_shop.cut_at(), on_api.cut_at()), (u64::MAX, u64::MAX));
}

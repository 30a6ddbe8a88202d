use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::config::model::{SlowRule, SuccessRule};
use crate::endpoints::{Health, ServiceCore, testing};
use crate::routing::Thread;

struct World {
    passive: Passive,
    events: Events,
    services: Arc<Services>,
    fleet: Arc<Fleet>,
    _task: AbortOnDropHandle<()>,
}

fn world() -> World {
    let (events, services, fleet) = (Events::default(), Arc::<Services>::default(), Arc::<Fleet>::default());
    let (passive, ejections) = Ejections::new(events.clone(), services.clone(), fleet.clone());
    World { passive, events, services, fleet, _task: AbortOnDropHandle::new(tokio::spawn(ejections.run())) }
}

fn policy(max_ejected_bp: u32) -> Outlier {
    Outlier { consecutive_failures: 3, max_ejected_bp, ..Outlier::default() }
}

/// Fails `times`, then lets the deciding side run.
async fn fail(world: &World, version: &Arc<VersionRuntime>, endpoint: usize, times: u32, bp: u32) {
    for _ in 0..times {
        world.passive.failed(&version.endpoints()[endpoint], version, Some(&policy(bp)));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn ejected(version: &VersionRuntime) -> Vec<bool> {
    version.endpoints().iter().map(|endpoint| endpoint.is_ejected()).collect()
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_for_a_while() {
    let (world, version) = (world(), testing::version(&[1, 2], 1));
    let service = Arc::new(ServiceCore::default());
    world.services.lock().expect("no panic").insert(version.endpoints()[0].incarnation, service.clone());
    fail(&world, &version, 0, 2, 5000).await;
    world.passive.succeeded(&version.endpoints()[0]);
    fail(&world, &version, 0, 2, 5000).await;
    assert_eq!(ejected(&version), [false, false], "never three in a row");
    fail(&world, &version, 0, 1, 5000).await;
    assert_eq!(ejected(&version), [true, false]);

    let back = service.changed.notified();
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(ejected(&version), [true, false]);
    back.await;
    assert_eq!(ejected(&version), [false, false]);
    let (told, _) = world.events.subscribe(0);
    let told: Vec<_> = told.iter().map(|event| event.data["to"].as_str().expect("a word")).collect();
    assert_eq!(told, ["ejected", "back"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_ejected_again_rests_for_longer() {
    let (world, version) = (world(), testing::version(&[1, 2], 1));
    for endpoint in &version.endpoints() {
        world.services.lock().expect("no panic").insert(endpoint.incarnation, Arc::default());
    }
    let mut rests = Vec::new();
    for calm in [0, 1, 1, 1, 1, 700, 9_000] {
        tokio::time::sleep(Duration::from_secs(calm)).await;
        let begun = Instant::now();
        fail(&world, &version, 0, 3, 5000).await;
        while ejected(&version)[0] {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        rests.push(begun.elapsed().as_secs());
    }
    // 700 s forget two of five, 9000 s all.
    assert_eq!(rests, [30, 60, 120, 240, 300, 240, 30]);
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_but_one_may_always_go() {
    let (world, version) = (world(), testing::version(&[1, 2, 3, 4], 1));
    for endpoint in 0..4 {
        fail(&world, &version, endpoint, 3, 5000).await;
    }
    assert_eq!(ejected(&version), [true, true, false, false], "half of them");
    let (world, version) = (self::world(), testing::version(&[1, 2, 3, 4], 1));
    for endpoint in 0..4 {
        fail(&world, &version, endpoint, 3, 100).await;
    }
    assert_eq!(ejected(&version), [true, false, false, false], "1 % of four is none, one goes all the same");
}

#[tokio::test(start_paused = true)]
async fn the_last_ready_one_stays() {
    let world = world();
    let alone = testing::version(&[1], 1);
    fail(&world, &alone, 0, 9, 10_000).await;
    assert_eq!(ejected(&alone), [false]);
    let version = testing::version(&[1, 2], 1);
    version.endpoints()[1].set_health(Health::Down);
    fail(&world, &version, 0, 9, 10_000).await;
    assert_eq!(ejected(&version), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_nothing_is_ejected() {
    let (world, version) = (world(), testing::version(&[1, 2], 1));
    for _ in 0..100 {
        world.passive.failed(&version.endpoints()[0], &version, None);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(ejected(&version), [false, false]);
}

#[tokio::test(start_paused = true)]
async fn who_does_worse_than_its_peers_is_ejected_at_the_next_comparison() {
    let (world, version) = (world(), testing::version(&[1, 2, 3], 1));
    let outlier = Outlier {
        success_rate: Some(SuccessRule { below_peers_bp: 1_000, min_requests: 50 }),
        latency: Some(SlowRule { max_ratio_hundredths: 300, at_least: Duration::from_millis(10), min_requests: 50 }),
        max_ejected_bp: 10_000,
        ..Outlier::default()
    };
    let watched = Watched { version: version.clone(), outlier: Some(outlier), panic_below_bp: 0 };
    world.fleet.lock().expect("no panic").push(watched);
    // Before it was watched: no evidence.
    (0..200).for_each(|_| version.endpoints()[1].tally.failed(Thread(0)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let serve = |endpoint: usize, failures: u32, millis: u64| {
        let tally = &version.endpoints()[endpoint].tally;
        (0..failures).for_each(|_| tally.failed(Thread(0)));
        (failures..100).for_each(|_| tally.answered(Thread(0), Some(Duration::from_millis(millis))));
    };
    (0..3).for_each(|endpoint| serve(endpoint, 0, 5));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(ejected(&version), [false; 3], "all alike");
    serve(0, 0, 5);
    serve(1, 40, 5);
    serve(2, 0, 80);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ejected(&version), [false; 3], "not yet");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ejected(&version), [false, true, true]);
    let (told, _) = world.events.subscribe(0);
    let why: Vec<_> = told.iter().map(|event| event.data["why"].as_str().expect("text")).collect();
    assert!(why.iter().any(|why| why.contains("40.0% of its requests failed, 0.0%")), "{why:?}");
    assert!(why.iter().any(|why| why.contains("half of its answers took longer than 65.5 ms")), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn too_few_ready_is_panic_until_enough_are() {
    let (world, version) = (world(), testing::version(&[1, 2, 3, 4], 1));
    let watched = Watched { version: version.clone(), outlier: None, panic_below_bp: 5_000 };
    world.fleet.lock().expect("no panic").push(watched);
    let panics = |version: &VersionRuntime| version.core.panic.load(Ordering::Relaxed);
    for (down, panic) in [(2, false), (3, true), (2, false)] {
        for (at, endpoint) in version.endpoints().iter().enumerate() {
            endpoint.set_health(if at < down { Health::Down } else { Health::Healthy });
        }
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(panics(&version), panic, "{down} of 4 down");
    }
    let (told, _) = world.events.subscribe(0);
    assert_eq!(told.iter().map(|event| event.data["panic"].clone()).collect::<Vec<_>>(), [true, false]);
    // What is not known yet is not counted as ill.
    version.endpoints()[0].set_health(Health::Healthy);
    version.endpoints().iter().skip(1).for_each(|endpoint| endpoint.set_health(Health::Unknown));
    tokio::time::sleep(LOOK * 2).await;
    assert!(!panics(&version));
}

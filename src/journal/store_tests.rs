use super::*;
use crate::control::api::RolloutEvidence;
use crate::control::rollouts::Saved;

fn decision(id: u64, service: &str, rollout: u64, word: &str) -> RolloutDecision {
    RolloutDecision {
        id,
        at: 1_700_000_000_000 + id,
        service: service.into(),
        rollout,
        stable: "v1".into(),
        canary: "v2".into(),
        stage: 1,
        share: 0.05,
        decision: word.into(),
        reason: "errors".into(),
        why: "4 of 41 requests failed".into(),
        author: "rollout".into(),
        cause: "rollback v2".into(),
        generation: Some(4),
        evidence: RolloutEvidence { errors_absolute: 1812.5, errors_relative: 254.3, ..RolloutEvidence::default() },
        receipt: None,
    }
}

fn ids(store: &Store, service: &str) -> Vec<u64> {
    let mut rows =
        store.connection().prepare("SELECT id FROM decisions WHERE service = ?1 ORDER BY id").expect("a query");
    rows.query_map([service], |row| row.get(0)).and_then(Iterator::collect).expect("read")
}

/// Decisions `from` to `to` at once: one by one each waits for the disk.
fn fill(store: &Store, service: &str, from: u64, to: u64) {
    let record = to_json(&decision(0, service, 1, "pause"));
    let fill = "INSERT INTO decisions (id, service, rollout, record)
        WITH RECURSIVE number(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM number WHERE n < ?2)
        SELECT n, ?3, 1, ?4 FROM number";
    store.connection().execute(fill, params![from, to, service, record]).expect("filled");
}

#[test]
fn decisions_come_back_whole_and_a_second_word_replaces_the_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path()).expect("new");
    let first = decision(1, "shop", 7, "rollback");
    store.decision(&first).expect("written");
    store.decision(&decision(2, "cart", 8, "start")).expect("written");
    let more = RolloutDecision { generation: Some(5), ..first };
    store.decision(&more).expect("written");
    assert_eq!(store.decisions("shop", None).expect("read"), [more]);
    assert_eq!(store.decisions("shop", Some(8)).expect("read"), []);
}

#[test]
fn a_service_keeps_its_last_thousand_decisions_and_all_services_a_bounded_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path()).expect("new");
    store.decision(&decision(1, "cart", 1, "start")).expect("written");
    fill(&store, "shop", 2, 1_500);
    store.decision(&decision(1_501, "shop", 1, "rollback")).expect("written");
    let kept = ids(&store, "shop");
    assert_eq!((kept.len(), kept[0], kept[999]), (1_000, 502, 1_501));
    assert_eq!(ids(&store, "cart"), [1], "another service's are its own");
    store.keep_samples("cart", 1, &Samples::new(1)).expect("written");
    store.decision(&decision(1 + DECISIONS_KEPT_OF_ALL as u64, "shop", 2, "start")).expect("written");
    assert!(ids(&store, "cart").is_empty(), "gone with time");
    assert!(store.samples().expect("read").is_empty(), "and its samples with it");
}

#[test]
fn a_start_gets_the_story_of_each_rollout_that_it_goes_on_with() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path()).expect("new");
    for (id, rollout, word) in [(1, 7, "start"), (2, 8, "start"), (3, 8, "advance")] {
        store.decision(&decision(id, "shop", rollout, word)).expect("written");
    }
    let mut samples = Samples::new(1_000);
    let evidence = RolloutEvidence::default();
    let sample = crate::control::api::RolloutSample {
        at: 0,
        stage: 1,
        share: 0.05,
        canary_requests: 41,
        canary_failures: 4,
        stable_requests: 800,
        stable_failures: 0,
        canary_p50_ms: Some(3.1),
        canary_p95_ms: None,
        stable_p50_ms: None,
        stable_p95_ms: None,
        errors: evidence.errors(),
        latency: 0.1,
        proof: 1.0,
    };
    samples.push(1_700_000_000_000, sample);
    store.keep_samples("shop", 8, &samples).expect("written");
    let kept = Kept { by_service: BTreeMap::from([("shop".into(), Saved::begun(8))]), ..Kept::default() };
    store.standing(&Standing { rollouts: kept, ..Standing::default() }).expect("written");
    let remembered = store.remembered().expect("read");
    let words: Vec<&str> = remembered.decisions.iter().map(|decision| &*decision.decision).collect();
    assert_eq!((words, remembered.last_decision), (vec!["start", "advance"], 3));
    assert_eq!(remembered.samples, BTreeMap::from([("shop".into(), (8, samples))]));
}

#[test]
fn what_cannot_be_read_of_a_story_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path()).expect("new");
    store.decision(&decision(1, "shop", 7, "start")).expect("written");
    let insert = |sql| store.connection().execute(sql, []).expect("scribbled");
    insert("INSERT INTO decisions (id, service, rollout, record) VALUES (2, 'shop', 7, '{')");
    insert("INSERT INTO samples (service, rollout, series) VALUES ('shop', 7, '[]')");
    assert_eq!(store.decisions("shop", None).expect("read").len(), 1);
    assert!(store.remembered().expect("read").samples.is_empty());
}

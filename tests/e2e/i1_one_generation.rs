//! I1: a request sees exactly one generation, retries included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::*;

const SWAPS: usize = 300;

/// Two configurations that differ in five fields at once: version, both header rewrites, the endpoint list
/// (whose first endpoint refuses, so that requests are tried again) and the host sent on.
fn paired(world: &World, mark: &str, origin: &Origin, refused: std::net::SocketAddr) -> String {
    format!(
        "{}routes:\n  - name: all\n    match: {{ path_prefix: / }}\n    service: shop\n    rewrite:\n      host: \
         {mark}.test\n      request_headers: {{ set: {{ x-mark: {mark} }} }}\n      response_headers: {{ set: {{ \
         x-mark: {mark} }} }}\nservices:\n  shop:\n    versions:\n      {mark}: {{ endpoints: [\"{refused}\", \
         \"{}\"] }}\n    active: {mark}\n",
        world.preamble(),
        origin.address
    )
}

#[tokio::test]
async fn i1_correlated_fields_are_never_mixed() {
    let mut world = World::new();
    let (a, b) = (world.origin("a").await, world.origin("b").await);
    let texts = [paired(&world, "a", &a, world.unused()), paired(&world, "b", &b, world.unused())];
    world.start_text(&texts[0]).await;
    a.forget();
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..8)
        .map(|nth| {
            let (mut client, stop) = (world.client(), stop.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = if nth % 2 == 0 { client.get("/x").await } else { client.post("/x", b"body").await };
                    assert_eq!((&answer.outcome, answer.status), (&Outcome::Ok, 200), "{}", answer.text());
                    let marks = [answer.version(), answer.origin(), answer.field("x-mark")]
                        .map(|mark| mark.unwrap_or("").to_string());
                    seen.push((answer.generation().expect("exposed"), marks));
                }
                seen
            })
        })
        .collect();
    for nth in 1..=SWAPS {
        let seen = world.post_config("apply", &texts[nth % 2]).await;
        assert_eq!(seen.status, 200, "{}", seen.text());
    }
    stop.store(true, Ordering::Relaxed);
    let mut by_generation = std::collections::HashMap::new();
    let mut answers = 0;
    for client in asking {
        for (generation, marks) in client.await.unwrap() {
            answers += 1;
            assert!(marks.iter().all(|mark| *mark == marks[0]), "mixed: {marks:?} in generation {generation}");
            let first = by_generation.entry(generation).or_insert_with(|| marks[0].clone());
            assert_eq!(*first, marks[0], "generation {generation} means one thing");
        }
    }
    assert!(answers > 100, "{answers} answers");
    assert!(by_generation.len() > 20, "requests fell into {} generations", by_generation.len());
    for (origin, mark) in [(&a, "a"), (&b, "b")] {
        for received in origin.received() {
            assert_eq!(received.field("x-mark"), Some(mark));
            assert_eq!(received.field("host"), Some(format!("{mark}.test").as_str()));
        }
    }
}

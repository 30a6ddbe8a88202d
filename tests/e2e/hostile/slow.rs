//! Clients that take their time: a thousand of them at once must cost little memory, end at their deadlines, and not
//! be felt by anybody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::client::Raw;
use crate::harness::*;
use crate::i12_bounded::resident_kib;

/// What such a client does after it has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slowness {
    /// Nothing at all.
    Idle,
    /// A head, byte by byte, that never ends.
    Head,
    /// A body, byte by byte.
    Body,
    /// Asks for a lot and reads nothing of it.
    Reader,
}

/// How many of each.
struct Attack {
    each: usize,
    lasts: Duration,
}

/// What became of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The proxy ended the connection, after so long.
    Ended(Duration),
    /// It was still open when the attack was over.
    Open,
}

async fn slow_client(address: SocketAddr, how: Slowness, lasts: Duration, here: &AtomicUsize) -> End {
    let mut raw = Raw::connect(address).await.expect("the listener accepts");
    here.fetch_add(1, Ordering::SeqCst);
    let began = Instant::now();
    let begin: &[u8] = match how {
        Slowness::Idle => b"",
        Slowness::Head => b"GET /slow HTTP/1.1\r\nhost: shop.test\r\nx-slow: ",
        Slowness::Body => b"POST /slow HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 100000\r\n\r\n",
        Slowness::Reader => b"GET /bytes/50000000 HTTP/1.1\r\nhost: shop.test\r\n\r\n",
    };
    if raw.write(begin).await.is_err() {
        return End::Ended(began.elapsed());
    }
    while began.elapsed() < lasts {
        match how {
            Slowness::Idle => {
                if raw.until_closed(lasts.saturating_sub(began.elapsed())).await.is_some() {
                    return End::Ended(began.elapsed());
                }
            }
            Slowness::Head | Slowness::Body => {
                let tick = Duration::from_millis(250);
                if raw.write(b"a").await.is_err() || raw.until_closed(tick).await.is_some() {
                    return End::Ended(began.elapsed());
                }
            }
            Slowness::Reader => {
                // A reset is seen without reading a byte; an ordinary close would leave the rest with the kernel.
                tokio::time::sleep(Duration::from_millis(100)).await;
                if matches!(raw.writer.as_ref().take_error(), Ok(Some(_))) {
                    return End::Ended(began.elapsed());
                }
            }
        }
    }
    End::Open
}

/// p50 and p99 of so many polite requests, each of which must succeed.
async fn polite(address: SocketAddr, requests: usize) -> (Duration, Duration) {
    let mut client = Client::new(address);
    let mut took = Vec::with_capacity(requests);
    for nth in 0..requests {
        if nth % 10 == 0 {
            client.hang_up(); // a new connection is part of it
        }
        let seen = client.get("/polite").await;
        assert_eq!((&seen.outcome, seen.status), (&Outcome::Ok, 200), "polite request {nth}");
        took.push(seen.took);
    }
    took.sort_unstable();
    (took[requests / 2], took[requests * 99 / 100])
}

async fn attacked(attack: &Attack) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    v1.stop_recording();
    let timeouts = "8080\", timeouts: { header: 1500ms, idle: 1500ms, body: 1500ms, write: 1500ms } }";
    let policy = "active: v1\ntimeouts: { request: 10s, idle: 10s, total: 4s }";
    world.start_text(&(world.preamble().replace("8080\" }", timeouts) + &one_service(&[&v1], policy))).await;
    let address = world.web();
    let (_, quiet) = polite(address, 200).await;
    let before = resident_kib(&world);
    let (mut clients, here) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for how in [Slowness::Idle, Slowness::Head, Slowness::Body, Slowness::Reader] {
        // Each reader costs the endpoint's answer in two kernels' buffers.
        let count = if how == Slowness::Reader { attack.each / 4 } else { attack.each };
        for _ in 0..count {
            let (lasts, here) = (attack.lasts, here.clone());
            clients.spawn(async move { (how, slow_client(address, how, lasts, &here).await) });
        }
    }
    let all = clients.len();
    until("they are all here", || async { here.load(Ordering::SeqCst) == all }).await;
    let (half, most) = polite(address, 200).await;
    let grown = resident_kib(&world).saturating_sub(before);
    println!("{all} slow clients: {grown} KiB more; polite p99 {quiet:?} before, p50 {half:?} p99 {most:?} meanwhile");
    // An idle one, a head, a body, and a quarter of a reader, in KiB.
    let most_memory = attack.each as u64 * (8 + 48 + 160 + 768 / 4);
    assert!(grown < most_memory, "{grown} KiB more for {all} clients");
    // Beside a thousand tasks of the attackers in this very process; who had to wait for a deadline would take 1.5 s.
    assert!(most < Duration::from_secs(1), "p99 {most:?}, {quiet:?} when it is quiet");
    let mut open = Vec::new();
    while let Some(done) = clients.join_next().await {
        let (how, end) = done.expect("a client does not panic");
        // Who reads nothing may not see the end; that the connection is given back shows it.
        if end == End::Open && how != Slowness::Reader {
            open.push(how);
        }
    }
    assert!(open.is_empty(), "{} of {all} still open after {:?}: {:?}", open.len(), attack.lasts, open[0]);
    until("every connection is given back", || async { world.metric("switchback_connections", &[]).await <= 1.0 })
        .await;
    assert_eq!(world.get("/after").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_clients_harm_nobody() {
    attacked(&Attack { each: 320, lasts: Duration::from_secs(8) }).await;
}

/// `cargo test --release --test e2e slow -- --ignored`, with `ulimit -n 65536`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs 20 000 descriptors and a quiet machine"]
async fn six_thousand_slow_clients_harm_nobody() {
    attacked(&Attack { each: 2000, lasts: Duration::from_secs(12) }).await;
}

/// A listener that is full of idlers takes the next client when the first of them is given up.
#[tokio::test]
async fn a_listener_full_of_idlers_frees_itself() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let limits = "8080\", timeouts: { header: 2s, idle: 2s }, limits: { connections: 20 } }";
    world.start_text(&(world.preamble().replace("8080\" }", limits) + &one_service(&[&v1], "active: v1"))).await;
    let mut idlers = Vec::new();
    for _ in 0..20 {
        idlers.push(world.raw().await);
    }
    until("it is full", || async { world.metric("switchback_connections", &[]).await >= 20.0 }).await;
    let began = Instant::now();
    let seen = world.get("/").await;
    assert_eq!((&seen.outcome, seen.status), (&Outcome::Ok, 200));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for idler in &mut idlers {
        assert_eq!(idler.until_closed(super::CLOSED).await.as_deref(), Some(&b""[..]));
    }
}

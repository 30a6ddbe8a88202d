//! Names of endpoints, asked of a DNS server of the test's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::dns::{DnsServer, Says};
use crate::harness::tls::{Authority, replace};
use crate::harness::tls_front::TlsFront;
use crate::harness::*;

/// An origin on a neighbour of the world's address, on this port: a world's own is 127.32 to 127.230.
async fn neighbour(world: &World, nth: u8, port: u16) -> Origin {
    Origin::start("v1", neighbours(world, nth, port)).await
}

fn neighbours(world: &World, nth: u8, port: u16) -> SocketAddr {
    let IpAddr::V4(ip) = world.web().ip() else { unreachable!("worlds are on IPv4") };
    let [a, b, c, d] = ip.octets();
    // Worlds count up in the last two octets, and never get as far as that.
    SocketAddr::from((Ipv4Addr::new(a, b, c + 128 + nth, d), port))
}

fn text(name: &str, server: &DnsServer, more: &str) -> String {
    let mut text = format!(
        "dns: {{ servers: [\"{}\"], ttl_min: 100ms, ttl_max: 300ms }}\nroutes:\n  - {{ name: all, match: {{ path_prefix: / }}, \
         service: shop }}\nservices:\n  shop:\n    versions: {{ v1: {{ endpoints: [\"{name}\"] }} }}\n    active: v1\n",
        server.address
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}

async fn endpoints(world: &World) -> Vec<Value> {
    world.version_status("shop", "v1").await["endpoints"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn every_address_is_an_endpoint_with_its_own_turns_and_health_for_as_long_as_the_name_has_it() {
    let mut world = World::new();
    let server = DnsServer::start(world.unused()).await;
    let (a, b) = (neighbour(&world, 0, 3900).await, neighbour(&world, 1, 3900).await);
    let set = |of: &[&Origin], ttl| {
        server.set("shop.test", Says::Is(of.iter().map(|origin| origin.address.ip()).collect(), ttl));
    };
    set(&[&a, &b], 1);
    let checked = "health: { path: /healthz, every: 100ms, pass: 1, fail: 1 }\nhold: { max_wait: 2s }";
    world.start(&text("shop.test:3900", &server, checked)).await;
    until("both pass", || async {
        let all = endpoints(&world).await;
        all.len() == 2 && all.iter().all(|it| it["health"] == "healthy")
    })
    .await;
    let served = |origin: &Origin| origin.received().iter().filter(|one| one.target() == "/").count();
    let mut client = world.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((served(&a), served(&b)), (10, 10), "turn by turn");

    // One is sick: it alone is out.
    a.set_health(500);
    let label = |origin: &Origin| format!("shop.test:3900 ({})", origin.address.ip());
    until("a is out", || async {
        let (a, b) = (label(&a), label(&b));
        let of_a = world.metric("switchback_endpoint_healthy", &[("endpoint", &a)]).await;
        let of_b = world.metric("switchback_endpoint_healthy", &[("endpoint", &b)]).await;
        (of_a, of_b) == (0.0, 1.0)
    })
    .await;
    let before = served(&a);
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(served(&a), before);

    // The name moves on; its TTL of a second is cut to 300 ms.
    set(&[&b], 1);
    until("a is gone", || async { endpoints(&world).await.len() == 1 }).await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_failure_keeps_the_last_good_answer_and_is_told() {
    let mut world = World::new();
    let server = DnsServer::start(world.unused()).await;
    let origin = neighbour(&world, 2, 3901).await;
    server.set("shop.test", Says::Is(vec![origin.address.ip()], 0));
    world.start(&text("shop.test:3901", &server, "")).await;
    until("the name is resolved", || async { world.get("/").await.status == 200 }).await;
    let resolved = || world.metric("switchback_name_resolved", &[("service", "shop"), ("name", "shop.test")]);
    assert_eq!(resolved().await, 1.0);
    let mut client = world.client();
    for says in [Says::Fails, Says::Is(Vec::new(), 60)] {
        server.set("shop.test", says);
        until("it is told", || async { resolved().await == 0.0 }).await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.status, 200);
        }
        let warnings = world.status().await["warnings"].to_string();
        assert!(warnings.contains("shop.test cannot be looked up, and the last good answer is kept"), "{warnings}");
        server.set("shop.test", Says::Is(vec![origin.address.ip()], 0));
        until("it is well again", || async { resolved().await == 1.0 }).await;
    }
    let events = world.events().await;
    let told = |event: &&Value| event["message"].as_str().is_some_and(|it| it.contains("the last good answer is kept"));
    assert_eq!(events.iter().filter(told).count(), 2, "once each: {events:?}");
    assert!(!world.status().await["warnings"].to_string().contains("looked up"));
}

#[tokio::test]
async fn both_families_are_endpoints_and_one_without_an_answer_stays_as_it_was() {
    let mut world = World::new();
    let server = DnsServer::start(world.unused()).await;
    let origin = neighbour(&world, 3, 3902).await;
    let (v4, v6) = (origin.address.ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
    server.set("shop.test", Says::Is(vec![v4, v6], 1));
    world.start(&text("shop.test:3902", &server, "")).await;
    let addresses = || async {
        let all = endpoints(&world).await;
        all.iter().map(|it| it["resolved"].clone()).collect::<Vec<_>>()
    };
    let both = vec![json!([format!("{v4}:3902")]), json!([format!("[{v6}]:3902")])];
    until("both are there", || async { addresses().await == both }).await;
    // Nobody answers about IPv6: that is not to know that there is none.
    server.set("shop.test", Says::OnlyIpv4Answered(vec![v4], 1));
    let resolved = || world.metric("switchback_name_resolved", &[("service", "shop"), ("name", "shop.test")]);
    until("it is noticed", || async { resolved().await == 0.0 }).await;
    assert_eq!(addresses().await, both);
    // Now it is known.
    server.set("shop.test", Says::Is(vec![v4], 1));
    until("the other is gone", || async { addresses().await == both[..1] }).await;
    assert_eq!(world.get("/").await.status, 200);
    // And one family can be all that is asked for.
    server.set("shop.test", Says::Is(vec![v4, v6], 1));
    until("both are there again", || async { addresses().await == both }).await;
    world.edit_and_wait(|text| text.replace("ttl_max: 300ms", "ttl_max: 300ms, family: ipv4")).await;
    until("one is left", || async { addresses().await == both[..1] }).await;
}

#[tokio::test]
async fn a_dead_address_of_a_name_costs_nobody_a_request() {
    let mut world = World::new();
    let server = DnsServer::start(world.unused()).await;
    let (gone, here) = (neighbour(&world, 4, 3903).await, neighbour(&world, 5, 3903).await);
    server.set("shop.test", Says::Is(vec![gone.address.ip(), here.address.ip()], 60));
    world.start(&text("shop.test:3903", &server, "")).await;
    until("the name is resolved", || async { world.get("/").await.status == 200 }).await;
    gone.stop().await;
    let mut client = world.client();
    for nth in 0..40 {
        assert_eq!(client.get("/").await.status, 200, "GET {nth}");
    }
}

#[tokio::test]
async fn a_name_that_never_was_gets_no_traffic_and_says_why() {
    let mut world = World::new();
    let server = DnsServer::start(world.unused()).await;
    world.start(&text("nowhere.test:3904", &server, "hold: { max_wait: 0s }")).await;
    until("it was asked for", || async { server.asked() >= 2 }).await;
    assert_eq!(world.get("/").await.status, 503);
    until("it says why", || async {
        let all = endpoints(&world).await;
        all.len() == 1 && all[0]["last_change"].as_str().unwrap_or_default().contains("nowhere.test cannot be resolved")
    })
    .await;
    // It comes up later.
    let origin = neighbour(&world, 6, 3904).await;
    server.set("nowhere.test", Says::Is(vec![origin.address.ip()], 1));
    until("it is found", || async { world.get("/").await.status == 200 }).await;
}

#[tokio::test]
async fn an_endpoint_must_prove_the_name_that_it_was_found_by() {
    let mut world = World::new();
    let server = DnsServer::start(world.unused()).await;
    let (origin, authority) = (world.origin("v1").await, Authority::new("endpoints"));
    replace(&world.path("ca.pem"), &authority.pem);
    let at = neighbours(&world, 7, 3905);
    let front = TlsFront::start(at, origin.address, &authority.issue(&["shop.test"])).await;
    for name in ["shop.test", "other.test"] {
        server.set(name, Says::Is(vec![at.ip()], 60));
    }
    let tls = "upstream: { tls: { ca_file: ca.pem } }";
    world.start(&text("shop.test:3905", &server, tls)).await;
    until("it is found", || async { world.get("/").await.status == 200 }).await;
    assert_eq!(front.handshakes()[0].name.as_deref(), Some("shop.test"));
    // The same address under a name that it cannot prove.
    world.edit_and_wait(|text| text.replace("shop.test:3905", "other.test:3905")).await;
    until("it is found and not believed", || async { world.get("/").await.status == 502 }).await;
}

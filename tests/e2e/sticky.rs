//! Sticky clients: by cookie, header or address; monotone; and who wins over whom.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::*;

const CLIENTS: usize = 300;

async fn two(more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], more)).await;
    (world, v1, v2)
}

async fn ask(client: &mut Client, name: &str, value: &str) -> String {
    let seen = client.get_with("/", &[(name, value)]).await;
    assert_eq!(seen.status, 200);
    seen.version().unwrap().to_string()
}

#[tokio::test]
async fn a_cookie_pins_both_arms_and_raising_a_weight_moves_only_to_it() {
    let (mut world, _v1, _v2) = two("split: { v1: 95, v2: 5 }\nsticky: { cookie: { name: sb, ttl: 12h } }").await;
    let mut client = world.client();
    let mut cookies = Vec::new();
    for _ in 0..CLIENTS {
        let seen = client.get("/").await;
        let line = seen.fields("set-cookie").first().copied().expect("both arms get a cookie").to_string();
        for attribute in ["Max-Age=43200", "HttpOnly", "SameSite", "Path=/"] {
            assert!(line.to_lowercase().contains(&attribute.to_lowercase()), "{attribute}: {line}");
        }
        let cookie = seen.cookie("sb").unwrap();
        assert!(!cookie.contains("v1") && !cookie.contains("v2"), "opaque: {cookie}");
        cookies.push((cookie, seen.version().unwrap().to_string()));
    }
    let mut on: Vec<(String, String)> = Vec::new();
    for (cookie, version) in &cookies {
        let again = client.get_with("/", &[("cookie", &format!("sb={cookie}"))]).await;
        assert_eq!(again.version(), Some(version.as_str()));
        assert!(again.cookie("sb").is_none_or(|new| new == *cookie), "the cookie stays");
        on.push((cookie.clone(), version.clone()));
    }
    let first = on.clone();
    for stage in [10, 25, 50, 100] {
        // At the end v1 is off; at weight 0 it would drain and keep whom it has.
        let split = if stage == 100 { json!({ "v2": 100 }) } else { json!({ "v1": 100 - stage, "v2": stage }) };
        world.weights("shop", split).await;
        let mut canary = 0;
        for (cookie, version) in &mut on {
            let seen = client.get_with("/", &[("cookie", &format!("sb={cookie}"))]).await;
            let now = seen.version().unwrap().to_string();
            assert!(*version == "v1" || now == "v2", "at {stage} %: {cookie} went back to v1");
            // As a browser does; what is kept of the client is the same.
            *cookie = seen.cookie("sb").unwrap_or_else(|| cookie.clone());
            canary += usize::from(now == "v2");
            *version = now;
        }
        let share = canary as f64 / CLIENTS as f64;
        assert!((share - f64::from(stage) / 100.0).abs() < 0.09, "at {stage} %: {share}");
        if stage == 50 {
            assert!(world.terminate().await.success());
            world.restart().await;
            client = world.client();
            for (cookie, version) in &on {
                assert_eq!(ask(&mut client, "cookie", &format!("sb={cookie}")).await, *version, "after a restart");
            }
        }
    }
    // Rollback to where it began needs no new cookie: the same clients as before are on v2.
    world.weights("shop", json!({ "v1": 95, "v2": 5 })).await;
    for (cookie, version) in &first {
        assert_eq!(ask(&mut client, "cookie", &format!("sb={cookie}")).await, *version);
    }
}

#[tokio::test]
async fn made_up_cookies_are_replaced_and_split_like_any_new_client() {
    let (world, _v1, _v2) = two("split: { v1: 50, v2: 50 }\nsticky: { cookie: { name: sb } }").await;
    let mut client = world.client();
    for junk in ["", "v2", "0", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "%00", "a.b", "\"x\""] {
        let seen = client.get_with("/", &[("cookie", &format!("sb={junk}"))]).await;
        assert_eq!(seen.status, 200, "{junk}");
        assert!(seen.cookie("sb").is_some(), "{junk:?} is not ours");
        let line = seen.fields("set-cookie")[0].to_string();
        assert!(!line.to_lowercase().contains("max-age"), "no ttl: a session cookie: {line}");
    }
}

#[tokio::test]
async fn the_endpoint_sees_the_clients_other_cookies() {
    let (world, v1, _v2) = two("active: v1\nsticky: { cookie: { name: sb } }").await;
    let cookie = world.get("/").await.cookie("sb").unwrap();
    world.client().get_with("/", &[("cookie", &format!("a=1; sb={cookie}; b=2"))]).await;
    let got = v1.last().field("cookie").unwrap_or("").to_string();
    assert!(got.contains("a=1") && got.contains("b=2"), "{got}");
}

#[tokio::test]
async fn a_header_or_an_address_pins_too() {
    let (world, _v1, _v2) = two("split: { v1: 50, v2: 50 }\nsticky: { header: x-user }").await;
    let mut client = world.client();
    let mut versions = HashMap::new();
    for nth in 0..60 {
        let user = format!("user-{nth}");
        versions.insert(user.clone(), ask(&mut client, "x-user", &user).await);
    }
    let on_v1 = versions.values().filter(|version| *version == "v1").count();
    assert!((12..=48).contains(&on_v1), "{on_v1} of 60 on v1");
    for (user, version) in &versions {
        assert_eq!(ask(&mut client, "x-user", user).await, *version);
    }
    assert_eq!(client.get("/").await.reason(), Some("weight"), "without the header there is nothing to pin by");

    world.edit_and_wait(|text| text.replace("sticky: { header: x-user }", "sticky: client_ip")).await;
    let mut by_address = HashMap::new();
    for nth in 1..=40u8 {
        let mut client = world.client();
        client.from = Some(std::net::IpAddr::from([127, 0, 7, nth]));
        let seen = client.get("/").await;
        assert_eq!((seen.status, seen.reason()), (200, Some("sticky")));
        let version = seen.version().unwrap().to_string();
        client.hang_up();
        assert_eq!(client.get("/").await.version(), Some(version.as_str()), "a new connection, the same client");
        *by_address.entry(version).or_insert(0) += 1;
    }
    assert_eq!(by_address.len(), 2, "{by_address:?}");
}

#[tokio::test]
async fn force_beats_pin_beats_sticky_beats_weight() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    std::fs::write(world.path("force.token"), "sesame\n").unwrap();
    let more = "split: { v1: 50, v2: 50 }\nsticky: { cookie: { name: sb } }\nforce: { header: x-version, token_file: force.token }\ndrain: { \
                sessions: 5m }";
    world.start(&one_service(&[&v1, &v2], more)).await;
    let mut client = world.client();
    let cookie = loop {
        let seen = client.get("/").await;
        if seen.version() == Some("v1") {
            break format!("sb={}", seen.cookie("sb").unwrap());
        }
    };
    let mut choice = async |headers: &[(&str, &str)]| {
        let seen = client.get_with("/", headers).await;
        assert_eq!(seen.status, 200, "{headers:?}: {}", seen.text());
        format!("{} {}", seen.version().unwrap(), seen.reason().unwrap())
    };
    // Sticky beats weight; force beats sticky; a wrong token forces nothing.
    assert_eq!(choice(&[("cookie", &cookie)]).await, "v1 sticky");
    assert_eq!(choice(&[("cookie", &cookie), ("x-version", "v2:sesame")]).await, "v2 force");
    for wrong in ["v2", "v2:", "v2:open", "v3:open"] {
        assert_eq!(choice(&[("cookie", &cookie), ("x-version", wrong)]).await, "v1 sticky", "{wrong}");
    }
    let unknown = world.client().get_with("/", &[("x-version", "v3:sesame")]).await;
    assert_eq!(unknown.status, 400, "who may force is told that there is no such version");
    // A forced request does not move the client.
    assert_eq!(choice(&[("cookie", &cookie)]).await, "v1 sticky");
    // v1 drains: the pin beats sticky and weight, force beats the pin.
    world.weights("shop", json!({ "v1": 0, "v2": 100 })).await;
    assert_eq!(choice(&[("cookie", &cookie)]).await, "v1 drain-pin");
    assert_eq!(choice(&[("cookie", &cookie), ("x-version", "v2:sesame")]).await, "v2 force");
    assert_eq!(choice(&[("cookie", &cookie), ("x-version", "v1:sesame")]).await, "v1 force");
    assert!(choice(&[]).await.starts_with("v2 "), "nobody new");
    // The deciding header stays here.
    assert_eq!(
        v1.last().field("x-version").filter(|value| value.contains("sesame")),
        None,
        "the token is not passed on"
    );
}

#[tokio::test]
async fn a_drain_deadline_and_a_rollback_end_a_pin() {
    let (world, _v1, _v2) =
        two("active: v1\nsticky: { cookie: { name: sb } }\ndrain: { requests: 1s, streams: 1s, sessions: 1s }").await;
    let mut client = world.client();
    let cookie = format!("sb={}", client.get("/").await.cookie("sb").unwrap());
    world.weights("shop", json!({ "v1": 0, "v2": 1 })).await;
    let pinned = client.get_with("/", &[("cookie", &cookie)]).await;
    assert_eq!((pinned.version(), pinned.reason()), (Some("v1"), Some("drain-pin")));
    until("the pin ends with its deadline", || async {
        world.client().get_with("/", &[("cookie", &cookie)]).await.version() == Some("v2")
    })
    .await;
    // Rolling back takes everybody away from v2 at once.
    let on_v2 = world.get("/").await;
    assert_eq!(on_v2.version(), Some("v2"));
    let cookie = format!("sb={}", on_v2.cookie("sb").unwrap());
    world.rollback("shop").await;
    let seen = world.client().get_with("/", &[("cookie", &cookie)]).await;
    assert_eq!(seen.version(), Some("v1"), "{:?}", seen.reason());
}

#[tokio::test]
async fn both_shares_are_shown() {
    let (world, _v1, _v2) = two("split: { v1: 75, v2: 25 }\nsticky: { header: x-user }").await;
    let mut client = world.client();
    for nth in 0..200 {
        ask(&mut client, "x-user", &format!("u{nth}")).await;
        ask(&mut client, "x-user", &format!("u{nth}")).await;
    }
    let share = |status: &Value, key: &str| status[key].as_f64().unwrap_or(-1.0);
    let v2 = world.version_status("shop", "v2").await;
    assert_eq!(share(&v2, "target_share"), 0.25);
    for key in ["realised_requests", "realised_clients"] {
        assert!((share(&v2, key) - 0.25).abs() < 0.12, "{key}: {v2}");
    }
    assert_eq!(
        v2["requests"].as_u64().unwrap() + world.version_status("shop", "v1").await["requests"].as_u64().unwrap(),
        400
    );
    for of in ["requests", "clients"] {
        let realised = world.metric("switchback_split_realised_share", &[("version", "v2"), ("of", of)]).await;
        assert!((realised - 0.25).abs() < 0.12, "{of}: {realised}");
    }
    assert_eq!(world.metric("switchback_split_target_share", &[("version", "v2")]).await, 0.25);
    assert_eq!(world.metric("switchback_split_weight", &[("version", "v2")]).await, 25.0);
}

//! The operator's door: who may come in, what is answered, what is written down.

use std::time::Duration;

use serde_json::json;

use crate::harness::*;

async fn running() -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    (world, v1, v2)
}

#[tokio::test]
async fn changes_need_the_token_and_the_token_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (world, _v1, _v2) = running().await;
    let file = world.state_dir().join("admin.token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(world.token().len() >= 32);
    let before = world.generation().await;
    let mut client = Client::new(world.admin());
    client.host = world.admin().to_string();
    for path in [
        "/api/v1/services/shop/switch",
        "/api/v1/services/shop/weights",
        "/api/v1/services/shop/rollback",
        "/api/v1/services/shop/drain",
        "/api/v1/services/shop/hold",
        "/api/v1/services/shop/release",
        "/api/v1/services/shop/clear",
        "/api/v1/config/apply",
        "/api/v1/config/reload",
        "/api/v1/generations/1/revert",
        "/api/v1/switch",
    ] {
        for authorization in ["", "Bearer wrong", "Basic abc", "Bearer"] {
            let headers = [("authorization", authorization), ("content-type", "application/json")];
            let headers = if authorization.is_empty() { &headers[1..] } else { &headers[..] };
            let seen = client.send("POST", path, headers, br#"{"to":"v2"}"#).await;
            assert_eq!(seen.status, 401, "{path} {authorization:?}: {}", seen.text());
            assert_eq!(seen.field("content-type"), Some("application/problem+json"));
        }
    }
    assert_eq!(world.generation().await, before);
    let audit = world.admin_get("/api/v1/audit").await.text();
    assert!(!audit.contains(&world.token()) && !world.log().contains(&world.token()), "the token is written nowhere");
    for path in ["/livez", "/readyz", "/metrics", "/api/v1/status"] {
        assert_eq!(world.admin_get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn foreign_hosts_and_sites_are_turned_away() {
    let (world, _v1, _v2) = running().await;
    let token = format!("Bearer {}", world.token());
    let ours = world.admin().to_string();
    for (host, origin) in
        [("evil.test", ""), ("evil.test:9900", ""), (ours.as_str(), "http://evil.test"), (ours.as_str(), "null")]
    {
        let mut headers = vec![("host", host), ("authorization", token.as_str()), ("content-type", "application/json")];
        if !origin.is_empty() {
            headers.push(("origin", origin));
        }
        let seen =
            Client::new(world.admin()).send("POST", "/api/v1/services/shop/switch", &headers, br#"{"to":"v2"}"#).await;
        assert!([400, 403, 421].contains(&seen.status), "{host} {origin}: {}", seen.status);
        let seen = Client::new(world.admin()).get_with("/api/v1/status", &headers).await;
        assert!([400, 403, 421].contains(&seen.status), "{host} {origin}: reading too, {}", seen.status);
    }
    assert_eq!(world.get("/").await.origin(), Some("v1"));
}

#[tokio::test]
async fn if_match_guards_against_old_knowledge() {
    let (world, _v1, _v2) = running().await;
    let live = world.generation().await;
    let order = async |tag: &str, to: &str| {
        let body = json!({ "to": to }).to_string();
        world.admin_post_with("/api/v1/services/shop/switch", &[("if-match", tag)], &body).await
    };
    assert_eq!(order(&format!("\"{}\"", live + 1), "v2").await.status, 412);
    assert_eq!(order("\"nonsense\"", "v2").await.status / 100, 4);
    let done = order(&format!("\"{live}\""), "v2").await;
    assert_eq!(done.status, 200, "{}", done.text());
    let stale = order(&format!("\"{live}\""), "v1").await;
    assert_eq!(stale.status, 412);
    assert!(stale.text().contains(&(live + 1).to_string()), "it says what is live: {}", stale.text());
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}

#[tokio::test]
async fn errors_are_problem_documents() {
    let (world, _v1, _v2) = running().await;
    for (method, path, status) in [
        ("GET", "/nope", 404),
        ("GET", "/api/v1/nope", 404),
        ("POST", "/api/v1/status", 405),
        ("GET", "/api/v1/services/shop/switch", 405),
    ] {
        let mut client = Client::new(world.admin());
        client.host = world.admin().to_string();
        let seen = client.send(method, path, &[], b"").await;
        assert_eq!(seen.status, status, "{method} {path}");
        assert_eq!(seen.field("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = seen.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{problem}");
    }
    let seen = world.admin_post_with("/api/v1/services/shop/switch", &[], "{not json").await;
    assert_eq!(seen.status, 400);
    let wrong = world.post_config("apply", "schema: 1\nservices: { a: { activ: b } }\n").await;
    assert!([400, 422].contains(&wrong.status), "{}", wrong.status);
    let problem = wrong.json();
    assert!(problem["problems"].as_array().is_some_and(|all| !all.is_empty()), "{problem}");
}

#[tokio::test]
async fn everything_done_is_in_the_audit() {
    let (world, _v1, _v2) = running().await;
    world.switch("shop", "v2").await;
    let _ = world.admin_post("/api/v1/services/shop/switch", json!({ "to": "v9" })).await;
    world.cli(&["weights", "shop", "v1=1", "v2=1"]).await.ok();
    let audit = world.admin_get("/api/v1/audit").await.json();
    let all = audit.as_array().unwrap();
    assert!(all.len() >= 3, "{audit}");
    for one in all {
        assert!(one["at"].as_u64().is_some() && one["from"].is_string() && one["author"].is_string(), "{one}");
    }
    let text = audit.to_string();
    for word in ["switch", "weights", "v9"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let results: std::collections::HashSet<&str> = all.iter().filter_map(|one| one["result"].as_str()).collect();
    assert!(results.len() >= 2, "done and refused are told apart: {results:?}");
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let (world, _v1, _v2) = running().await;
    let host = world.admin().to_string();
    let mut events = SseClient::open_with(world.admin(), "/api/v1/events", &[("host", &host)]).await;
    assert!(
        events.headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("text/event-stream"))
    );
    let receipt = world.switch("shop", "v2").await;
    let wanted = receipt["generation"].as_u64().unwrap();
    let found = soon("the publish comes", async {
        loop {
            events.next().await.unwrap();
            let publish = events
                .text
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.strip_prefix("data:")?.trim()).ok())
                .find(|event| event["kind"] == "publish" && event.to_string().contains(&wanted.to_string()));
            if let Some(event) = publish {
                return event;
            }
        }
    })
    .await;
    assert!(found["message"].as_str().unwrap().contains("v2"), "{found}");
    // Where one left off one continues.
    let id = found["id"].to_string();
    world.switch("shop", "v1").await;
    let mut later =
        SseClient::open_with(world.admin(), "/api/v1/events", &[("host", &host), ("last-event-id", &id)]).await;
    soon("the one missed", async {
        while !later.text.contains("switch shop to v1") {
            later.next().await.unwrap();
        }
    })
    .await;
    assert!(!later.text.contains(&format!("\"id\":{id},")), "{}", later.text);
    drop(events);
    assert_eq!(world.admin_get("/livez").await.status, 200);
}

#[tokio::test]
async fn metrics_are_well_formed_and_complete() {
    let (world, v1, _v2) = running().await;
    let mut client = world.client();
    for path in ["/", "/status/404", "/status/500"] {
        client.get(path).await;
    }
    let text = world.admin_get("/metrics").await.text();
    let mut typed = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_string()), "typed twice: {name} in\n{text}");
        } else if !line.starts_with('#') && !line.is_empty() {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(!series.contains("{}") && series.matches('{').count() <= 1, "{line}");
        }
    }
    for name in [
        "switchback_requests_total",
        "switchback_request_duration_seconds",
        "switchback_in_flight",
        "switchback_config_generation",
        "switchback_config_last_reload_successful",
        "switchback_config_reloads_total",
        "switchback_config_compile_seconds",
        "switchback_generations_live",
        "switchback_split_weight",
        "switchback_endpoint_healthy",
        "switchback_connections",
        "switchback_build_info",
    ] {
        assert!(typed.contains(name), "{name}");
    }
    let count = async |code: &str| {
        world
            .metric(
                "switchback_requests_total",
                &[("service", "shop"), ("version", "v1"), ("route", "all"), ("code", code)],
            )
            .await
    };
    assert_eq!((count("200").await, count("404").await, count("500").await), (1.0, 1.0, 1.0));
    assert_eq!(world.metric("switchback_request_duration_seconds_count", &[("version", "v1")]).await, 3.0);
    assert_eq!(world.metric("switchback_config_generation", &[]).await, world.generation().await as f64);
    assert_eq!(world.metric("switchback_connections", &[("listener", "web")]).await, 1.0);
    // Counters outlive generations.
    world.reload_with_route(1).await;
    assert_eq!(count("200").await, 1.0);
    drop(v1);
}

#[tokio::test]
async fn slow_and_large_callers_hold_nothing_up() {
    let (world, _v1, _v2) = running().await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut raw = client::Raw::connect(world.admin()).await.unwrap();
        raw.write(b"POST /api/v1/config/apply HTTP/1.1\r\n").await.unwrap();
        idle.push(raw);
    }
    let began = std::time::Instant::now();
    world.switch("shop", "v2").await;
    assert!(began.elapsed() < Duration::from_secs(2));
    let large = "a".repeat(20 * 1024 * 1024);
    let seen = world.post_config("apply", &large).await;
    assert!([400, 413, 422].contains(&seen.status) || seen.outcome != Outcome::Ok, "{}", seen.status);
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let (world, _v1, _v2) = running().await;
    let tcp = format!("admin: {{ bind: \"{}\" }}", world.admin());
    world.edit_config(|text| text.replace(&tcp, "admin: { bind: \"unix:admin.sock\" }"));
    let socket = format!("unix:{}", world.path("admin.sock").display());
    until("it answers on the socket", || async { world.cli(&["status", "--admin", &socket]).await.code == Some(0) })
        .await;
    world.cli(&["switch", "shop", "v2", "--admin", &socket]).await.ok();
    assert_eq!(world.get("/").await.origin(), Some("v2"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(world.path("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "strangers stay out: {mode:o}");
}

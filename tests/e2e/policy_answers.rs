//! What requests are called, and the page of a service that is closed.

use crate::harness::*;

async fn with(top: &str, service: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&format!("{top}\n{}", one_service(&[&v1], &format!("active: v1\n{service}")))).await;
    (world, v1)
}

#[tokio::test]
async fn a_request_has_one_name_on_every_side() {
    let (world, v1) = with("access_log: { to: access.log }\nrequest_id: { respond: true }", "").await;
    let mut client = world.client();
    let long = "n".repeat(200);
    let spaced = "a b\u{1}".replace('\u{1}', "\t") + "c";
    let mut names = Vec::new();
    for (sent, named) in [
        (None, None),
        (None, None),
        (Some("from-client-1"), Some("from-client-1")),
        (Some(&*long), Some(&long[..64])),
        (Some(&*spaced), Some("a_b_c")),
    ] {
        let fields: Vec<_> = sent.iter().map(|name| ("x-request-id", *name)).collect();
        let seen = client.get_with("/", &fields).await;
        let name = seen.field("x-request-id").expect("it is sent back").to_string();
        assert_eq!(v1.last().fields("x-request-id"), [name.as_str()], "the endpoint gets it once");
        assert_eq!(named.unwrap_or(&name), name);
        assert!(name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
        names.push(name);
    }
    assert_eq!(names[0].len(), 32);
    assert_ne!(names[0], names[1], "no two are alike");
    // An answer of our own has it too, and a client cannot take it off.
    let seen = client.get_with("/", &[("connection", "x-request-id"), ("x-request-id", "kept")]).await;
    assert!(seen.field("x-request-id").is_some());
    assert!(v1.last().field("x-request-id").is_some());
    let log = || std::fs::read_to_string(world.path("access.log")).unwrap_or_default();
    until("all are logged", || async { log().lines().count() == 6 }).await;
    for (line, name) in log().lines().zip(&names) {
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"], name.as_str());
    }
    // Not trusted: always a new one. Under another header, and silent.
    let other = "request_id: { header: x-correlation, trust: false }";
    world.edit_and_wait(|text| text.replace("request_id: { respond: true }", other)).await;
    let seen = client.get_with("/", &[("x-correlation", "forged"), ("x-request-id", "as-it-is")]).await;
    assert_eq!((seen.field("x-correlation"), seen.field("x-request-id")), (None, None));
    let received = v1.last();
    assert!(received.fields("x-correlation").len() == 1 && received.field("x-correlation") != Some("forged"));
    assert_eq!(received.field("x-request-id"), Some("as-it-is"), "an ordinary field now");
    // Without the key nothing is made and nothing is touched.
    world.edit_and_wait(|text| text.replace(other, "")).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(v1.last().field("x-request-id"), None);
    assert_eq!(client.opened, 1);
}

#[tokio::test]
async fn a_closed_service_shows_its_page_and_lets_testers_through() {
    let (world, v1) = with("", "sticky: client_ip").await;
    std::fs::write(world.path("closed.html"), "<h1>Back at 8</h1>\n").unwrap();
    let mut client = world.client();
    let mut tester = world.client();
    tester.from = Some([127, 0, 2, 9].into());
    client.from = Some([127, 0, 2, 8].into());
    let mut socket = WsClient::open(world.web(), "/ws").await;
    let page = "maintenance: { file: closed.html, content_type: text/html, retry_after: 10m, allow: [127.0.2.9] }";
    world.edit_and_wait(|text| text.replace("sticky: client_ip", page)).await;
    let before = v1.requests();
    let seen = client.get("/cart").await;
    assert_eq!((seen.status, seen.text().as_str()), (503, "<h1>Back at 8</h1>\n"));
    let field = |name| seen.field(name).unwrap_or_default().to_string();
    assert_eq!(
        (field("content-type"), field("retry-after"), field("cache-control")),
        ("text/html".into(), "600".into(), "no-store".into())
    );
    let head = client.send("HEAD", "/", &[], b"").await;
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (503, Some("19"), 0));
    assert_eq!(v1.requests(), before, "nothing reaches the service");
    assert_eq!(tester.get("/").await.origin(), Some("v1"));
    assert_eq!(world.service_status("shop").await["maintenance"], true);
    let text = world.cli(&["status"]).await.ok().out;
    assert!(text.contains("MAINTENANCE"), "{text}");
    assert_eq!(world.metric("switchback_refused_total", &[("service", "shop"), ("reason", "maintenance")]).await, 2.0);
    assert_eq!(world.metric("switchback_request_errors_total", &[("service", "shop")]).await, 0.0, "it is no failure");
    socket.ping_pong().await.expect("what is open stays");
    // Open again, with the page kept in the file.
    world.edit_and_wait(|text| text.replace("maintenance: { ", "maintenance: { enabled: false, ")).await;
    assert_eq!((client.get("/").await.status, client.opened), (200, 1));
    assert_eq!(world.service_status("shop").await["maintenance"], false);
    // A page that is not there is refused, with its place.
    let refused = world
        .post_config("plan", &std::fs::read_to_string(world.config()).unwrap().replace("closed.html", "nowhere.html"))
        .await;
    assert!(refused.status >= 400 && refused.text().contains("nowhere.html"), "{}", refused.text());
}

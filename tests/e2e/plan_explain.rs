//! `plan` says what a change would do and mean now; `explain` says where a request goes and why; `expect:`
//! keeps a configuration from being published that breaks either.

use crate::harness::*;

async fn running() -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "split: { v1: 90, v2: 10 }\nsticky: { header: x-user }")).await;
    (world, v1, v2)
}

#[tokio::test]
async fn a_plan_shows_the_difference_and_what_it_means() {
    let (world, _v1, _v2) = running().await;
    let mut sockets = Vec::new();
    while !sockets.iter().any(|socket: &WsClient| socket.version() == Some("v1")) {
        sockets.push(WsClient::open(world.web(), "/ws").await);
    }
    let text = std::fs::read_to_string(world.config()).unwrap();
    let before = world.generation().await;
    let same = world.post_config("plan", &text).await;
    assert_eq!((same.status, &same.json()["changed"]), (200, &false.into()), "{}", same.text());
    let listener = format!("listeners:\n  more: {{ bind: \"{}\" }}\n", world.unused());
    let next = text.replace("v1: 90, v2: 10", "v1: 0, v2: 100").replace("listeners:\n", &listener);
    let plan = world.post_config("plan", &next).await.json();
    assert_eq!((&plan["changed"], &plan["base"]), (&true.into(), &before.into()));
    let kinds = |list: &str| -> Vec<String> {
        plan[list].as_array().unwrap().iter().map(|line| line["kind"].as_str().unwrap().to_string()).collect()
    };
    assert!(kinds("changes").contains(&"split".into()), "{plan}");
    assert!(
        kinds("changes").contains(&"listener".into()) || kinds("consequences").contains(&"listener".into()),
        "{plan}"
    );
    for kind in ["stream", "client"] {
        assert!(kinds("consequences").contains(&kind.into()), "{kind}: {plan}");
    }
    assert!(plan["diff"].as_str().unwrap().contains("100"), "{plan}");
    std::fs::write(world.path("next.yaml"), &next).unwrap();
    let ran = world.cli(&["plan", "-c", "next.yaml", "--detailed-exitcode"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.out.contains("shop") && ran.out.contains("100"), "{ran:?}");
    std::fs::write(world.path("next.yaml"), next.replace("service: shop", "service: nope")).unwrap();
    let ran = world.cli(&["plan", "-c", "next.yaml"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(world.generation().await, before, "a plan changes nothing");
}

#[tokio::test]
async fn an_explanation_is_what_then_happens() {
    let (world, v1, _v2) = running().await;
    for nth in 0..20 {
        let user = format!("user{nth}");
        let said = world
            .admin_get(&format!("/api/v1/explain?method=GET&url=http://shop.test/a/../b%3Fq=1&h.x-user={user}"))
            .await
            .json();
        let seen = world.client().get_with("/a/../b?q=1", &[("x-user", &user)]).await;
        assert_eq!(said["version"].as_str(), seen.version(), "{said}");
        assert_eq!(said["reason"].as_str(), seen.reason());
        assert_eq!(said["generation"].as_u64(), seen.generation());
        assert_eq!(said["route"], "all");
        assert!(said["steps"].as_array().unwrap().len() >= 2, "{said}");
    }
    assert!(v1.received().iter().all(|one| one.target() == "/b?q=1"));
    let ran = world.cli(&["explain", "GET", "http://shop.test/x", "-H", "x-user:someone"]).await.ok();
    assert!(ran.out.contains("sticky") && ran.out.contains("all"), "{ran:?}");
    let bad = world.admin_get("/api/v1/explain?method=GET&url=http://shop.test/%252e").await;
    assert!(bad.status == 200 || bad.status == 400, "{}", bad.status);
}

#[tokio::test]
async fn expectations_are_proven_before_a_publish() {
    let (world, _v1, _v2) = running().await;
    let expect = "expect:\n  - { request: \"GET http://shop.test/x\", route: all, service: shop }\n";
    world.edit_and_wait(|text| text + expect).await;
    let before = world.generation().await;
    world.edit_config(|text| text.replace("path_prefix: / }, service: shop", "path_prefix: /only }, service: shop"));
    until("the broken promise is noticed", || async {
        world.status().await["config"]["last_reload_successful"] == false
    })
    .await;
    let rendered = world.status().await["config"]["rendered"].as_str().unwrap_or("").to_string();
    assert!(rendered.contains("expect") && rendered.contains("switchback.yaml:"), "{rendered}");
    assert_eq!(world.generation().await, before);
    assert_eq!(world.get("/x").await.status, 200);
}

//! The command line: exit codes, JSON, and what it says when nothing runs.

use serde_json::json;

use crate::harness::*;

async fn running() -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    (world, v1, v2)
}

#[tokio::test]
async fn exit_codes_mean_what_they_say() {
    let (world, _v1, _v2) = running().await;
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["status", "shop"], 0),
        (&["status", "nope"], 1),
        (&["check", "-c", "switchback.yaml"], 0),
        (&["check", "-c", "missing.yaml"], 1),
        (&["plan", "-c", "switchback.yaml", "--detailed-exitcode"], 0),
        (&["explain", "GET", "http://shop.test/"], 0),
        (&["history"], 0),
        (&["healthcheck"], 0),
        (&["healthcheck", "--live"], 0),
        (&["config", "effective"], 0),
        (&["config", "schema"], 0),
        (&["switch", "shop", "nope"], 1),
        (&["switch", "shop"], 2),
        (&["weights", "shop", "v1"], 2),
        (&["weights", "shop", "v1=lots"], 2),
        (&["frobnicate"], 2),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let ran = world.cli(arguments).await;
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        if code == 1 {
            assert!(!ran.err.trim().is_empty(), "{arguments:?} says why on stderr");
        }
        assert!(!ran.out.contains('\x1b'), "no colour: {arguments:?}");
    }
}

#[tokio::test]
async fn json_everywhere() {
    let (world, _v1, _v2) = running().await;
    let status = world.cli(&["status", "--json"]).await.ok().json();
    assert_eq!(status["generation"]["number"], world.generation().await);
    assert_eq!(status["services"][0]["name"], "shop");
    let receipt = world.cli(&["switch", "shop", "v2", "--json"]).await.ok().json();
    assert_eq!(receipt["changed"], true);
    let receipt = world.cli(&["weights", "shop", "v1=90", "v2=10", "--json"]).await.ok().json();
    assert_eq!(receipt["to"]["shop"], json!({ "v1": 90, "v2": 10 }));
    let explained = world.cli(&["explain", "GET", "http://shop.test/x", "--json"]).await.ok().json();
    assert_eq!(explained["service"], "shop");
    let history = world.cli(&["history", "--json"]).await.ok().json();
    assert!(history.as_array().unwrap().len() >= 3);
    let schema = world.cli(&["config", "schema"]).await.ok().json();
    assert!(schema["properties"]["services"].is_object(), "{schema}");
    let refused = world.cli(&["switch", "shop", "v9", "--json"]).await;
    assert_eq!(refused.code, Some(1));
}

#[tokio::test]
async fn status_for_people_tells_who_has_the_traffic() {
    let (world, _v1, _v2) = running().await;
    world.cli(&["weights", "shop", "v1=90", "v2=10"]).await.ok();
    for _ in 0..20 {
        world.get("/").await;
    }
    let out = world.cli(&["status"]).await.ok().out;
    for word in ["shop", "v1", "v2", "90", "10"] {
        assert!(out.contains(word), "{word} in:\n{out}");
    }
    let effective = world.cli(&["config", "effective"]).await.ok().out;
    assert!(effective.contains("shop") && effective.contains("90"), "{effective}");
    let history = world.cli(&["history"]).await.ok().out;
    assert!(history.contains("weights"), "{history}");
}

#[tokio::test]
async fn without_an_instance_it_says_where_it_looked() {
    let world = World::new();
    std::fs::create_dir(world.state_dir()).unwrap();
    std::fs::write(world.state_dir().join("admin.token"), "0".repeat(64)).unwrap();
    for arguments in [&["status"][..], &["switch", "shop", "v2"], &["healthcheck"], &["history"]] {
        let ran = world.cli(arguments).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains(&world.admin().to_string()), "{ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
    }
}

#[tokio::test]
async fn the_first_configuration_is_made_and_passes_its_own_check() {
    let world = World::new();
    let ran = world.cli(&["config", "init", "-"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let written = if ran.out.contains("schema:") {
        std::fs::write(world.config(), &ran.out).unwrap();
        ran.out
    } else {
        std::fs::read_to_string(world.config()).unwrap()
    };
    assert!(written.contains("services:"), "{written}");
    let checked = world.cli(&["check", "-c", "switchback.yaml"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[tokio::test]
async fn an_apply_that_is_not_confirmed_goes_back_by_itself() {
    let (world, _v1, _v2) = running().await;
    let changed = std::fs::read_to_string(world.config()).unwrap().replace("active: v1", "active: v2");
    std::fs::write(world.path("next.yaml"), &changed).unwrap();
    let ran = world.cli(&["apply", "-c", "next.yaml", "--confirm", "4s"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(world.get("/").await.origin(), Some("v2"));
    assert!(world.status().await["confirm_until"].is_u64());
    until("it goes back", || async { world.get("/").await.origin() == Some("v1") }).await;
    assert!(world.status().await["confirm_until"].is_null());
}

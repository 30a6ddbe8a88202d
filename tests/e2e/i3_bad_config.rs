//! I3: a bad configuration changes nothing that serves, and is visible until fixed.

use crate::harness::load::Plan;
use crate::harness::*;

#[tokio::test]
async fn i3_a_bad_file_is_visible_and_changes_nothing() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let load = Load::start(world.web(), &Plan::default());
    load.more(20).await;
    let before = world.status().await;
    assert_eq!(before["config"]["last_reload_successful"], true);
    assert_eq!(world.metric("switchback_config_last_reload_successful", &[]).await, 1.0);

    world.edit_config(|text| text.replace("active: v1", "active: v22"));
    until("the bad file is noticed", || async { world.status().await["config"]["last_reload_successful"] == false })
        .await;
    let bad = world.status().await;
    assert_eq!(bad["generation"]["number"], before["generation"]["number"]);
    let problem = &bad["config"]["problems"][0];
    assert!(problem["what"].as_str().unwrap().contains("v22"), "{problem}");
    assert!(problem["place"]["line"].as_u64().unwrap() > 1, "{problem}");
    let rendered = bad["config"]["rendered"].as_str().unwrap();
    assert!(rendered.contains("v22") && rendered.contains("did you mean"), "{rendered}");
    assert_eq!(world.metric("switchback_config_last_reload_successful", &[]).await, 0.0);
    assert!(world.metric("switchback_config_reloads_total", &[("result", "invalid")]).await >= 1.0);
    assert!(world.log().contains("v22"), "the log names it");
    load.more(50).await;

    world.edit_config(|text| text.replace("active: v22", "active: v2"));
    until("the good file is live", || async { world.get("/").await.origin() == Some("v2") }).await;
    until("status says so", || async { world.status().await["config"]["last_reload_successful"] == true }).await;
    assert_eq!(world.status().await["config"]["problems"], serde_json::json!([]));
    assert_eq!(world.metric("switchback_config_last_reload_successful", &[]).await, 1.0);
    let report = load.stop().await;
    report.assert_unbroken();
    assert!(report.from("v1") > 0);
}

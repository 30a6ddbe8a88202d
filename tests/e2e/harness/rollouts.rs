//! A rollout of the service `shop`, as tests wait for it.

use serde_json::Value;

use super::{World, until};

/// The edit that begins it.
pub fn to_v2(text: String) -> String {
    text.replace("active: v1", "active: v2")
}

pub async fn rollout(world: &World) -> Value {
    world.service_status("shop").await["rollout"].clone()
}

pub async fn until_phase(world: &World, phase: &str) -> Value {
    until(&format!("the rollout is {phase}"), || async { rollout(world).await["phase"] == phase }).await;
    rollout(world).await
}

pub async fn until_stage(world: &World, stage: u64) {
    until(&format!("stage {stage}"), || async { rollout(world).await["stage"] == stage }).await;
}

//! `switchback history` and `revert`.

use std::process::ExitCode;

use super::args::{ChangeArgs, InstanceArgs};
use super::client::{Call, Client};
use super::failure::Failure;
use super::switch::send;
use super::{output, render};
use crate::control::api::GenerationInfo;
use crate::telemetry::unix_ms;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    instance: InstanceArgs,
}

#[derive(clap::Args, Debug)]
pub struct RevertArgs {
    generation: u64,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let generations: Vec<GenerationInfo> = Client::find(&args.instance)?.json(Call::get("/api/v1/generations")).await?;
    if args.instance.json {
        output::json(&generations)?;
    } else {
        output::out(&render::history(&generations, unix_ms(), output::colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn revert(args: RevertArgs) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/generations/{}/revert", args.generation);
    send(&args.change, &path, &serde_json::json!({})).await
}

//! `switchback weights SERVICE v1=90 v2=10`.

use std::process::ExitCode;

use super::args::{ChangeArgs, weights};
use super::failure::Failure;
use super::switch::send;
use crate::admin::query::encode;

#[derive(clap::Args, Debug)]
pub struct Args {
    service: String,
    /// Only the proportions count; 0 drains a version, one that is not named is off
    #[arg(required = true, value_name = "VERSION=WEIGHT")]
    weights: Vec<String>,
    /// Also to versions that are not healthy
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let weights = weights(&args.weights)?;
    let force = if args.force { "?force=true" } else { "" };
    let path = format!("/api/v1/services/{}/weights{force}", encode(&args.service));
    send(&args.change, &path, &serde_json::json!(weights)).await
}

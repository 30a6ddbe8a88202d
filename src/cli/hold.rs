//! `switchback hold`, `release` and `clear`: one service, nothing else to say.

use std::process::ExitCode;

use super::args::ChangeArgs;
use super::failure::Failure;
use super::switch::send;
use crate::admin::query::encode;

#[derive(clap::Args, Debug)]
pub struct Args {
    service: String,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args, verb: &str) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/services/{}/{verb}", encode(&args.service));
    send(&args.change, &path, &serde_json::json!({})).await
}

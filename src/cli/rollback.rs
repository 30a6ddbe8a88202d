//! `switchback rollback SERVICE`.

use std::process::ExitCode;

use super::args::ChangeArgs;
use super::failure::Failure;
use super::switch::send;
use crate::admin::query::encode;

#[derive(clap::Args, Debug)]
pub struct Args {
    service: String,
    /// Why, for the history
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/services/{}/rollback", encode(&args.service));
    send(&args.change, &path, &serde_json::json!({ "reason": args.reason })).await
}

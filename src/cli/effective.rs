//! `switchback config effective`.

use std::process::ExitCode;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::output;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let text = Client::find(&args.instance)?.text(Call::get("/api/v1/config/effective")).await?;
    if args.instance.json {
        output::json(&serde_json::json!({ "yaml": text }))?;
    } else {
        output::out(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

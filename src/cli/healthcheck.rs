//! `switchback healthcheck`: for `HEALTHCHECK` in an image without curl.

use std::process::ExitCode;
use std::time::Duration;

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
    let client = Client::find(&args.instance)?;
    let (status, body) = client.whole(Call::get("/readyz"), Duration::from_secs(3)).await?;
    let text = String::from_utf8_lossy(&body).trim().to_string();
    if args.instance.json {
        output::json(&serde_json::json!({ "ready": status.is_success(), "state": text }))?;
    } else if status.is_success() {
        output::out(&format!("{text}\n"))?;
    }
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Failed { what: format!("not ready: {text}"), hint: None })
}

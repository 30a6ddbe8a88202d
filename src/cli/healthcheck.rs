//! `switchback healthcheck`: for `HEALTHCHECK` and probes in an image without curl.

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
    /// Ask whether it is alive, not whether it is ready: true while it starts and drains too
    #[arg(long)]
    live: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let client = Client::find(&args.instance)?;
    let call = Call::get(if args.live { "/livez" } else { "/readyz" });
    let (status, body) = client.whole(call, Duration::from_secs(3)).await?;
    let text = String::from_utf8_lossy(&body).trim().to_string();
    if args.instance.json {
        let asked = if args.live { "alive" } else { "ready" };
        output::json(&serde_json::json!({ asked: status.is_success(), "state": text }))?;
    } else if status.is_success() {
        output::out(&format!("{text}\n"))?;
    }
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let asked = if args.live { "alive" } else { "ready" };
    Err(Failure::Failed { what: format!("not {asked}: {text}"), hint: None })
}

//! `switchback upgrade`: a new process takes over from the one that serves, without losing a connection.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::output;

/// Longer than any `upgrade.ready_timeout` that makes sense.
const ANSWER: Duration = Duration::from_secs(15 * 60);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The new program; default the file that runs, as it is now
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let binary = args.binary.as_ref().map(std::path::absolute).transpose();
    let binary = binary.map_err(|error| Failure::Usage(format!("--binary: {error}")))?;
    let body = serde_json::json!({ "binary": binary });
    let outcome: serde_json::Value =
        Client::find(&args.instance)?.json_within(Call::change("/api/v1/upgrade", &body, None), ANSWER).await?;
    if args.instance.json {
        output::json(&outcome)?;
    } else {
        let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_string();
        output::out(&format!("{} (pid {}, version {})\n", text("why"), outcome["pid"], text("version")))?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `switchback status [SERVICE] [--watch]`.

use std::process::ExitCode;
use std::time::Duration;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::{output, render};
use crate::control::api::Status;
use crate::telemetry::unix_ms;

const WATCH_EVERY: Duration = Duration::from_secs(1);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Only this service
    service: Option<String>,
    /// Show it again every second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let client = Client::find(&args.instance)?;
    loop {
        let mut status: Status = client.json(Call::get("/api/v1/status")).await?;
        if let Some(service) = &args.service {
            only(&mut status, service)?;
        }
        if args.instance.json {
            output::json(&status)?;
        } else {
            let colour = output::colour();
            let clear = if args.watch && colour { CLEAR_SCREEN } else { "" };
            output::out(&format!("{clear}{}", render::status(&status, unix_ms(), colour)))?;
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn only(status: &mut Status, service: &str) -> Result<(), Failure> {
    let names: Vec<_> = status.services.iter().map(|service| format!("`{}`", service.name)).collect();
    status.services.retain(|found| found.name == service);
    status.draining.retain(|drain| drain.service == service);
    match status.services.is_empty() {
        true => Err(Failure::new(
            format!("there is no service `{service}`"),
            format!("the services are {}", names.join(", ")),
        )),
        false => Ok(()),
    }
}

//! `switchback audit`.

use std::process::ExitCode;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::{output, render};
use crate::control::api::AuditRecord;
use crate::telemetry::unix_ms;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Entries at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let call = Call::get(format!("/api/v1/audit?limit={}", args.limit));
    let records: Vec<AuditRecord> = Client::find(&args.instance)?.json(call).await?;
    if args.instance.json {
        output::json(&records)?;
    } else {
        output::out(&render::audit(&records, unix_ms(), output::colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

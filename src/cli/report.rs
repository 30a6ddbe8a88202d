//! `switchback rollout report SERVICE`: the whole story of the rollout that runs or ended last.

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::{output, render};
use crate::admin::query::encode;
use crate::control::api::RolloutReport;

#[derive(clap::Args, Debug)]
pub struct Args {
    service: String,
    /// For people, for programs, or a page with charts that needs nothing else; default text
    #[arg(long, value_enum, conflicts_with = "json")]
    format: Option<Format>,
    /// Write it there instead of to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also the rollouts of the service before this one
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    instance: InstanceArgs,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Html,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let client = Client::find(&args.instance)?;
    let all = if args.all { "?all=true" } else { "" };
    let call = Call::get(format!("/api/v1/services/{}/rollout{all}", encode(&args.service)));
    let report: RolloutReport = client.json(call).await?;
    let format = args.format.unwrap_or(if args.instance.json { Format::Json } else { Format::Text });
    let text = match format {
        Format::Text => render::report(&report, output::colour() && args.output.is_none()),
        Format::Json => {
            serde_json::to_string_pretty(&report).expect("our own types have string keys and cannot fail") + "\n"
        }
        Format::Html => render::page(&report),
    };
    match &args.output {
        None => output::out(&text)?,
        Some(path) => std::fs::write(path, text).map_err(|error| {
            let what = format!("cannot write {}: {error}", path.display());
            Failure::new(what, "name another file with --output")
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

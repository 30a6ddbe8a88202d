//! `switchback plan`: what an apply of this file would change on the running instance.

use std::process::ExitCode;

use http::Method;

use super::args::InstanceArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::{apply, instance, output, render};
use crate::admin::query::encode;
use crate::control::api::Plan;

const CHANGES: u8 = 4;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Exit 0 if nothing would change, 4 if something would
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    instance: InstanceArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let path = instance::config_path(args.instance.config.as_deref())?;
    // A directory does not travel: the instance plans its own.
    let (query, body) = match path.is_dir() {
        true => (String::new(), Vec::new()),
        false => {
            let (name, text) = apply::read(&path)?;
            (format!("?name={}", encode(&name)), text)
        }
    };
    let call = Call {
        method: Method::POST,
        path: format!("/api/v1/config/plan{query}"),
        body: body.into(),
        content_type: Some("text/yaml"),
        ..Call::default()
    };
    let plan: Plan = Client::find(&args.instance)?.json(call).await?;
    if args.instance.json {
        output::json(&plan)?;
    } else {
        output::out(&render::plan(&plan, output::colour()))?;
    }
    Ok(if args.detailed_exitcode && plan.changed { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

//! `switchback apply` and `confirm`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;

use super::args::ChangeArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::switch::{send, show};
use super::{instance, output};
use crate::admin::query::encode;
use crate::admin::units::parse_duration;
use crate::control::api::{Receipt, Status};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Go back by itself unless `switchback confirm` comes within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    confirm: Option<Duration>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(clap::Args, Debug)]
pub struct ConfirmArgs {
    /// Default: the live one
    generation: Option<u64>,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let path = instance::config_path(args.change.instance.config.as_deref())?;
    let client = Client::find(&args.change.instance)?;
    if path.is_dir() {
        return reload(&args, &client, &path).await;
    }
    let (name, text) = read(&path)?;
    let mut query = format!("?name={}", encode(&name));
    if let Some(confirm) = args.confirm {
        query.push_str(&format!("&confirm={}ms", confirm.as_millis()));
    }
    let receipt: Receipt = client
        .json(Call {
            method: Method::POST,
            path: format!("/api/v1/config/apply{query}"),
            body: text.into(),
            content_type: Some("text/yaml"),
            if_match: args.change.if_match,
            changes: true,
            ..Call::default()
        })
        .await?;
    show(&receipt, args.change.instance.json)?;
    if let Some(confirm) = args.confirm.filter(|_| receipt.changed) {
        let seconds = confirm.as_secs();
        output::err(&format!(
            "goes back by itself in {seconds} s, unless: switchback confirm {}\n",
            receipt.generation
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A directory does not travel; but if it is the instance's own, the instance can read it again.
async fn reload(args: &Args, client: &Client, path: &Path) -> Result<ExitCode, Failure> {
    let status: Status = client.json(Call::get("/api/v1/status")).await?;
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if args.confirm.is_some() || !same(path, Path::new(&status.config.source)) {
        return Err(Failure::new(
            format!("{} is a directory: only one file can be applied", path.display()),
            format!(
                "the instance watches {}: change the files there, and it applies them itself",
                status.config.source
            ),
        ));
    }
    send(&args.change, "/api/v1/config/reload", &serde_json::json!({})).await
}

/// The name is absolute: what the file refers to lies beside it, wherever the instance runs.
pub fn read(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let text = std::fs::read(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display()), "name the configuration with -c")
    })?;
    let absolute: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    Ok((absolute.to_string_lossy().into_owned(), text))
}

pub async fn confirm(args: ConfirmArgs) -> Result<ExitCode, Failure> {
    let body = match args.generation {
        Some(generation) => serde_json::json!({ "generation": generation }),
        None => serde_json::json!({}),
    };
    send(&args.change, "/api/v1/config/confirm", &body).await
}

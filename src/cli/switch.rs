//! `switchback switch SERVICE VERSION`, or several `SERVICE=VERSION` that flip in one generation.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::args::{ChangeArgs, pairs};
use super::client::{Call, Client};
use super::failure::Failure;
use super::{output, render};
use crate::control::api::Receipt;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// SERVICE VERSION, or one or more SERVICE=VERSION
    #[arg(required = true, value_name = "SERVICE VERSION")]
    to: Vec<String>,
    /// Also to a version that is not healthy
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let to = targets(&args.to)?;
    let path = if args.force { "/api/v1/switch?force=true" } else { "/api/v1/switch" };
    send(&args.change, path, &serde_json::json!(to)).await
}

fn targets(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    match words {
        [service, version] if !service.contains('=') && !version.contains('=') => {
            Ok(BTreeMap::from([(service.clone(), version.clone())]))
        }
        pairs_given => pairs(pairs_given, "SERVICE=VERSION; for one service write `switch SERVICE VERSION`"),
    }
}

/// Asks for a change and shows its receipt.
pub async fn send(args: &ChangeArgs, path: &str, body: &serde_json::Value) -> Result<ExitCode, Failure> {
    let call = Call::change(path, body, args.if_match);
    let receipt: Receipt = Client::find(&args.instance)?.json(call).await?;
    show(&receipt, args.instance.json)?;
    Ok(ExitCode::SUCCESS)
}

pub fn show(receipt: &Receipt, json: bool) -> Result<(), Failure> {
    if json { output::json(receipt) } else { output::out(&render::receipt(receipt, output::colour())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_service_or_several() {
        let read = |line: &str| {
            let words: Vec<_> = line.split(' ').map(String::from).collect();
            targets(&words).map(|to| format!("{to:?}")).map_err(|_| ())
        };
        assert_eq!(read("shop v2"), Ok(r#"{"shop": "v2"}"#.into()));
        assert_eq!(read("shop=v2"), Ok(r#"{"shop": "v2"}"#.into()));
        assert_eq!(read("shop=v2 api=green"), Ok(r#"{"api": "green", "shop": "v2"}"#.into()));
        for wrong in ["shop", "shop v2 v3", "shop=v2 api", "shop v2=x", "shop=v1 shop=v2", "shop="] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }
}

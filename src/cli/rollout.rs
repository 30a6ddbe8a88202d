//! `switchback rollout start|promote|pause|resume|abort|approve|event|report SERVICE`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::ChangeArgs;
use super::failure::Failure;
use super::switch::send;
use crate::admin::query::encode;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Begin a rollout to a version (default: the file's `active`)
    Start {
        service: String,
        version: Option<String>,
        /// Although the version was rejected
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Go to the next stage now, whatever the evidence says
    Promote {
        service: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Stay at this stage until `resume`; a rollback stays possible
    Pause {
        service: String,
        /// Why, for the history
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Go on; the stage begins anew
    Resume {
        service: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Everything back to stable, now; the version counts as rejected
    Abort {
        service: String,
        /// Why, for the history
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Say yes at the gate that the rollout waits at
    Approve {
        service: String,
        #[arg(long)]
        gate: Option<String>,
        /// Who says yes; a gate may know its approvers
        #[arg(long)]
        by: Option<String>,
        #[arg(long)]
        comment: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// The whole story of the rollout that runs or ended last
    Report(super::report::Args),
    /// Report what happened to a version from outside: `restart`
    Event {
        service: String,
        version: String,
        kind: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub async fn run(command: Command) -> Result<ExitCode, Failure> {
    let (service, call, body, change): (String, &str, Value, ChangeArgs) = match command {
        Command::Report(args) => return super::report::run(args).await,
        Command::Start { service, version, again, change } => {
            (service, "rollout/start", json!({ "to": version, "again": again }), change)
        }
        Command::Promote { service, change } => (service, "rollout/promote", json!({}), change),
        Command::Pause { service, reason, change } => (service, "rollout/pause", json!({ "reason": reason }), change),
        Command::Resume { service, change } => (service, "rollout/resume", json!({}), change),
        Command::Abort { service, reason, change } => (service, "rollout/abort", json!({ "reason": reason }), change),
        Command::Approve { service, gate, by, comment, change } => {
            (service, "rollout/approve", json!({ "gate": gate, "by": by, "comment": comment }), change)
        }
        Command::Event { service, version, kind, change } => {
            (service, "events", json!({ "version": version, "kind": kind }), change)
        }
    };
    send(&change, &format!("/api/v1/services/{}/{call}", encode(&service)), &body).await
}

//! Arguments in, exit code out: one file per command.
//!
//! Most commands are one call to the admin API of the running instance ([`client`]), found as described
//! in [`instance`]; [`render`] turns answers into what people read. Exit codes: 0 done, 1 refused or
//! failed (the reason is on stderr), 2 wrong usage, 3 done but work was cut; `plan --detailed-exitcode`
//! adds 4 for "there are changes".

mod apply;
mod args;
mod audit;
pub mod check;
mod client;
pub mod config;
mod demo;
mod drain;
mod effective;
mod events;
mod explain;
mod failure;
mod healthcheck;
mod history;
mod hold;
mod instance;
mod output;
mod plan;
mod render;
mod report;
mod rollback;
mod rollout;
mod run;
mod simulate;
mod status;
mod switch;
mod upgrade;
mod weights;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An edge reverse proxy that carries its own progressive-delivery controller.
#[derive(Parser)]
#[command(name = "switchback", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a configuration until SIGTERM or SIGINT
    Run(run::Args),
    /// Show it all in a minute: versions, load, a flip, a canary, a rollback
    Demo(demo::Args),
    /// Check a configuration without running it
    Check {
        /// File, or directory of files
        #[arg(short, long, value_name = "PATH", env = "SWITCHBACK_CONFIG")]
        config: Option<PathBuf>,
        #[arg(long, value_enum, default_value = "human")]
        format: check::Format,
        /// The same as `--format json`
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
    /// Show what an apply would change, and what that would mean for the traffic of now
    Plan(plan::Args),
    /// Show what is live
    Status(status::Args),
    /// What a rollout is to do (start, promote, pause, resume, abort, approve), and what it did: report
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Show what a rollout would do, in seconds: the real rules on made or recorded traffic
    Simulate(simulate::Args),
    /// Show how a request would be routed, and why, without sending it
    Explain(explain::Args),
    /// Send all traffic of a service to one version; several services flip at once
    Switch(switch::Args),
    /// Go back to the previous split of a service, now
    Rollback(rollback::Args),
    /// Share the traffic of a service between its versions
    Weights(weights::Args),
    /// Give a version nothing new and let its work finish
    Drain(drain::Args),
    /// Let new requests of a service wait
    Hold(hold::Args),
    /// End a hold
    Release(hold::Args),
    /// Forget what operators changed about a service: the file decides again
    Clear(hold::Args),
    /// Publish a configuration file on the running instance
    Apply(apply::Args),
    /// Keep what `apply --confirm` published
    Confirm(apply::ConfirmArgs),
    /// List generations, newest first
    History(history::Args),
    /// Publish an earlier generation again
    Revert(history::RevertArgs),
    /// The configuration: what serves, its schema, a first file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The same as `config schema`
    #[command(hide = true)]
    Schema,
    /// Follow what happens
    Events(events::Args),
    /// List who changed what, newest first
    Audit(audit::Args),
    /// Let a new process take over from the one that serves
    Upgrade(upgrade::Args),
    /// Exit 0 if the instance is ready (for containers)
    Healthcheck(healthcheck::Args),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the configuration that serves, with what operators changed on top of the file
    Effective(effective::Args),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Write a first configuration file
    Init {
        /// Where to; default `switchback.yaml`, `-` prints it
        path: Option<PathBuf>,
        /// Replace a file that exists
        #[arg(long)]
        force: bool,
    },
}

pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => return run::run(args),
        Command::Demo(args) => return demo::run(args),
        Command::Check { config, format, json } => {
            let format = if json { check::Format::Json } else { format };
            instance::config_path(config.as_deref()).map(|path| check::run(&path, format))
        }
        Command::Schema | Command::Config(ConfigCommand::Schema) => return config::schema(),
        Command::Config(ConfigCommand::Init { path, force }) => return config::init(path.as_deref(), force),
        Command::Config(ConfigCommand::Effective(args)) => output::block_on(effective::run(args)),
        Command::Plan(args) => output::block_on(plan::run(args)),
        Command::Status(args) => output::block_on(status::run(args)),
        Command::Rollout(command) => output::block_on(rollout::run(command)),
        Command::Simulate(args) => simulate::run(&args),
        Command::Explain(args) => output::block_on(explain::run(args)),
        Command::Switch(args) => output::block_on(switch::run(args)),
        Command::Rollback(args) => output::block_on(rollback::run(args)),
        Command::Weights(args) => output::block_on(weights::run(args)),
        Command::Drain(args) => output::block_on(drain::run(args)),
        Command::Hold(args) => output::block_on(hold::run(args, "hold")),
        Command::Release(args) => output::block_on(hold::run(args, "release")),
        Command::Clear(args) => output::block_on(hold::run(args, "clear")),
        Command::Apply(args) => output::block_on(apply::run(args)),
        Command::Confirm(args) => output::block_on(apply::confirm(args)),
        Command::History(args) => output::block_on(history::run(args)),
        Command::Revert(args) => output::block_on(history::revert(args)),
        Command::Events(args) => output::block_on(events::run(args)),
        Command::Audit(args) => output::block_on(audit::run(args)),
        Command::Upgrade(args) => output::block_on(upgrade::run(args)),
        Command::Healthcheck(args) => output::block_on(healthcheck::run(args)),
    };
    done.unwrap_or_else(|failure| failure.report())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        for line in [
            "run -c switchback.yaml --threads 2",
            "run --no-supervisor",
            "demo --fault errors --duration 30s",
            "check --format github",
            "check -c conf.d --json",
            "plan --detailed-exitcode",
            "status shop --watch --json",
            "explain GET http://shop.test/ -H x-user:7 -H cookie:a=b",
            "switch shop v2 --force",
            "switch shop=v2 api=green --if-match 41",
            "rollback shop --reason 5xx",
            "weights shop v1=90 v2=10",
            "drain shop v1 --wait --timeout 5m",
            "rollout start shop v2 --again",
            "rollout promote shop",
            "rollout pause shop --reason lunch",
            "rollout resume shop --json",
            "rollout abort shop",
            "rollout approve shop --gate sre --by ada --comment fine",
            "rollout event shop v2 restart",
            "rollout report shop --all",
            "rollout report shop --format html --output report.html",
            "simulate -c switchback.yaml --scenario errors=5%,stable=0.01%,rps=2000,after=25% --scenario healthy",
            "simulate --service shop --runs 1 --seed 7 --rps 50 --exact --json",
            "simulate --from-access-log access.jsonl",
            "hold shop",
            "release shop --json",
            "clear shop",
            "apply -c new.yaml --confirm 5m",
            "confirm",
            "confirm 43",
            "history",
            "revert 7",
            "config effective",
            "config schema",
            "config init other.yaml --force",
            "events --after 0",
            "audit --limit 5",
            "upgrade",
            "upgrade --binary /opt/switchback --json",
            "healthcheck --admin unix:/run/switchback/admin.sock",
            "status --admin http://127.0.0.1:9900 --token-file t -c x.yaml",
        ] {
            let words = std::iter::once("switchback").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "",
            "fly",
            "simulate --runs 0",
            "simulate --rps -1",
            "simulate --rps 5 --from-access-log x",
            "switch",
            "weights shop",
            "revert",
            "revert x",
            "explain GET",
            "drain shop",
            "demo --fault x",
        ] {
            let words = std::iter::once("switchback").chain(line.split(' ').filter(|word| !word.is_empty()));
            let error = Cli::try_parse_from(words).err().expect(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}

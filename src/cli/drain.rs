//! `switchback drain SERVICE VERSION [--wait]`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::ChangeArgs;
use super::client::{Call, Client};
use super::failure::Failure;
use super::switch::show;
use super::{output, render};
use crate::admin::query::encode;
use crate::admin::units::parse_duration;
use crate::control::api::{DrainStatus, Receipt, Status};
use crate::telemetry::unix_ms;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Done, but work was cut.
const CUT: u8 = 3;

#[derive(clap::Args, Debug)]
pub struct Args {
    service: String,
    version: String,
    /// Return when its work has finished: 0 all of it, 3 some was cut at the deadline, 1 not in time
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    change: ChangeArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Failure> {
    let client = Client::find(&args.change.instance)?;
    let path = format!("/api/v1/services/{}/drain", encode(&args.service));
    let body = serde_json::json!({ "version": args.version });
    let receipt: Receipt = client.json(Call::change(path, &body, args.change.if_match)).await?;
    let json = args.change.instance.json;
    if !args.wait {
        show(&receipt, json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !json {
        show(&receipt, json)?;
    }
    wait(&args, &client, receipt).await
}

async fn wait(args: &Args, client: &Client, receipt: Receipt) -> Result<ExitCode, Failure> {
    let (json, until) = (args.change.instance.json, args.timeout.map(|timeout| Instant::now() + timeout));
    let mut cut_so_far = 0;
    let mut shown = String::new();
    loop {
        let status: Status = client.json(Call::get("/api/v1/status")).await?;
        let drain = find(&status, args);
        cut_so_far = cut_so_far.max(drain.map_or(0, |drain| drain.cut));
        let progress = progress(&status, args);
        if progress != Progress::Running {
            end_report(&shown);
        }
        match progress {
            Progress::Done => {
                if json {
                    output::json(&serde_json::json!({ "receipt": receipt, "drained": true, "cut": cut_so_far }))?;
                } else {
                    output::out(&render::drained(&args.service, &args.version, cut_so_far, output::colour()))?;
                }
                return Ok(if cut_so_far > 0 { ExitCode::from(CUT) } else { ExitCode::SUCCESS });
            }
            Progress::Undone(why) => return Err(Failure::Failed { what: why, hint: None }),
            Progress::Running => {}
        }
        let line = match drain {
            Some(drain) => render::drain(drain, unix_ms()),
            None => format!("{}/{} is draining", args.service, args.version),
        };
        if until.is_some_and(|until| Instant::now() >= until) {
            end_report(&shown);
            let what = format!("{}/{} is not drained yet: {line}", args.service, args.version);
            return Err(Failure::new(what, "it goes on draining: wait again, or look at `switchback status`"));
        }
        if !json && line != shown {
            report(&line);
            shown = line;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// In place on a terminal, line by line elsewhere.
fn report(line: &str) {
    match std::io::stderr().is_terminal() {
        true => output::err(&format!("\r\x1b[K{line}")),
        false => output::err(&format!("{line}\n")),
    }
}

/// What follows begins on a line of its own.
fn end_report(shown: &str) {
    if !shown.is_empty() && std::io::stderr().is_terminal() {
        output::err("\n");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Running,
    Done,
    /// The version was given traffic again, or is gone.
    Undone(String),
}

fn find<'a>(status: &'a Status, args: &Args) -> Option<&'a DrainStatus> {
    // The newest, should an earlier drain of the same version still be listed.
    let fits = |drain: &&DrainStatus| drain.service == args.service && drain.version == args.version;
    status.draining.iter().filter(fits).max_by_key(|drain| drain.since)
}

fn progress(status: &Status, args: &Args) -> Progress {
    let service = status.services.iter().find(|service| service.name == args.service);
    let version = service.and_then(|service| service.versions.iter().find(|version| version.name == args.version));
    if version.is_some_and(|version| version.weight > 0) {
        let what = format!(
            "{}/{} was given traffic again (generation {})",
            args.service, args.version, status.generation.number
        );
        return Progress::Undone(what);
    }
    match (find(status, args), version) {
        (Some(drain), _) if drain.finished => Progress::Done,
        (Some(_), _) => Progress::Running,
        // Nothing is listed when there was nothing to wait for.
        (None, Some(version)) if version.in_flight.values().sum::<u64>() > 0 => Progress::Running,
        (None, Some(_) | None) => Progress::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;

    fn drain_of(version: &str) -> Args {
        Args {
            service: "shop".into(),
            version: version.into(),
            wait: true,
            timeout: None,
            change: ChangeArgs::default(),
        }
    }

    #[test]
    fn a_drain_runs_until_the_instance_says_it_is_finished() {
        let mut status = samples::status();
        assert_eq!(progress(&status, &drain_of("v0")), Progress::Running);
        status.draining[0].finished = true;
        assert_eq!(progress(&status, &drain_of("v0")), Progress::Done);
    }

    #[test]
    fn what_is_not_listed_is_done_when_nothing_is_in_flight() {
        let mut status = samples::status();
        status.draining.clear();
        assert_eq!(progress(&status, &drain_of("v0")), Progress::Running);
        status.services[0].versions.iter_mut().for_each(|version| version.in_flight.clear());
        assert_eq!(progress(&status, &drain_of("v0")), Progress::Done);
    }

    #[test]
    fn a_version_that_gets_traffic_again_is_not_drained() {
        assert!(matches!(progress(&samples::status(), &drain_of("v1")), Progress::Undone(_)));
    }
}

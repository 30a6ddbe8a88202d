//! `switchback simulate`: what the rollout of a service would do, without an instance and without waiting.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::{check, instance, output, render};
use crate::admin::Refusal;
use crate::config::load;
use crate::config::model::{Config, Intent, Service, StageTraffic};
use crate::config::{list, nearest, write_time};
use crate::rollout::{STAGES_LONGEST, share_of};
use crate::simulate::{
    Pace, Recorder, Recording, Scenario, Setup, Shortfall, Story, Summary, Traffic, run as tell, shortfalls,
};

/// Made traffic, unless something else is asked for: rate of failures, and latencies in milliseconds.
const ERRORS: f64 = 0.0001;
const P50_MS: f64 = 3.0;
const P95_MS: f64 = 7.0;
/// Longer lines are none of an access log.
const LINE_BYTES_MAX: u64 = 1 << 20;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// File, or directory of files
    #[arg(short, long, value_name = "PATH", env = "SWITCHBACK_CONFIG")]
    config: Option<PathBuf>,
    /// Whose rollout; needed if several services have one
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// What happens, such as `errors=5%,after=25%`, or a file of such lines; several are compared
    ///
    /// healthy, errors=RATE, latency=FACTORx, crashes[=EVERY], outage[=RATE] (of both), stable-outage, low-traffic; with
    /// stable=RATE (failures of what is well), rps=N, after=STAGE or from=DURATION, for=DURATION, p50=MS, p95=MS
    #[arg(long = "scenario", value_name = "WORDS|FILE")]
    scenarios: Vec<String>,
    /// Simulated rollouts of each scenario
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    runs: u64,
    /// The same number tells the same stories
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Requests a second of the service, if there is no recording; default 200
    #[arg(long, value_name = "R", value_parser = crate::simulate::rps, conflicts_with = "from_access_log")]
    rps: Option<f64>,
    /// Arrivals, failures and latencies of stable as recorded in an access log of switchback
    #[arg(long, value_name = "FILE")]
    from_access_log: Option<PathBuf>,
    /// Look every 100 ms as production does, even while nothing is new (slower, the same to the eye)
    #[arg(long)]
    exact: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// All that was simulated.
#[derive(Debug, Serialize)]
pub struct Simulated {
    pub service: String,
    pub stable: String,
    pub canary: String,
    /// Shares of the stages, 0 to 1.
    pub stages: Vec<f64>,
    /// Requests a second, on average.
    pub rps: f64,
    pub recorded: Option<Recorded>,
    pub runs: u64,
    pub seed: u64,
    pub warnings: Vec<String>,
    /// What is different from a real rollout.
    pub notes: Vec<String>,
    pub scenarios: Vec<Outcome>,
}

#[derive(Debug, Serialize)]
pub struct Recorded {
    pub file: PathBuf,
    pub requests: u64,
    pub failed: u64,
    pub seconds: u64,
    /// Lines of other services and versions, and lines that could not be read.
    pub others: u64,
    pub unread: u64,
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub scenario: String,
    pub summary: Summary,
    /// The first run.
    pub story: Story,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let path = instance::config_path(args.config.as_deref())?;
    let config = config(&path)?;
    let (name, service) = service(&config, args.service.as_deref(), &path)?;
    let simulated = simulate(args, name, service)?;
    if args.json {
        output::json(&simulated)?;
    } else {
        output::out(&render::simulated(&simulated, output::colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn config(path: &Path) -> Result<std::sync::Arc<Config>, Failure> {
    match load::read(path).and_then(load::parse) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => {
            let rendered = Some(check::paint(&problems, None, output::colour_on_stderr()));
            Err(Failure::Refused(Box::new(Refusal { rendered, ..Refusal::default() })))
        }
    }
}

/// The service that was named, or the only one with a rollout.
fn service<'c>(config: &'c Config, wanted: Option<&str>, path: &Path) -> Result<(&'c str, &'c Service), Failure> {
    let all = || config.services.iter().map(|(name, service)| (&**name, service));
    let with: Vec<(&str, &Service)> = all().filter(|(_, service)| service.rollout.is_some()).collect();
    let names: Vec<&str> = with.iter().map(|(name, _)| *name).collect();
    let file = path.display();
    let Some(wanted) = wanted else {
        return match with.as_slice() {
            [only] => Ok(*only),
            [] => Err(Failure::new(
                format!("no service in {file} has a rollout"),
                "give one a `rollout:` section beside `active:`; docs/rollouts.md shows how",
            )),
            _ => Err(Failure::new(
                format!("{} in {file} have rollouts", list(&names)),
                "say whose to simulate with --service",
            )),
        };
    };
    match all().find(|(name, _)| *name == wanted) {
        Some((name, service)) if service.rollout.is_some() => Ok((name, service)),
        Some(_) => Err(Failure::new(
            format!("service `{wanted}` in {file} has no `rollout:` section"),
            match names.is_empty() {
                true => "give it one beside `active:`".into(),
                false => format!("these have one: {}", list(&names)),
            },
        )),
        None => Err(Failure::new(
            format!("there is no service `{wanted}` in {file}"),
            match nearest(wanted, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("these have a rollout: {}", list(&names)),
            },
        )),
    }
}

fn simulate(args: &Args, name: &str, service: &Service) -> Result<Simulated, Failure> {
    let Some(mut plan) = service.rollout.clone() else {
        return Err(Failure::new(format!("service `{name}` has no rollout"), "give it a `rollout:` section"));
    };
    let Intent::Active(stable) = &service.intent else {
        return Err(Failure::new(format!("service `{name}` has no `active:`"), "a rollout begins with `active:`"));
    };
    let mut notes = Vec::new();
    let before = plan.stages.len();
    plan.stages.retain(|stage| matches!(stage.traffic, StageTraffic::Share(_)));
    if plan.stages.len() < before {
        notes.push("stages with `match` or `mirror` are left out: nothing is known of their clients".to_string());
    }
    if plan.stages.iter().any(|stage| stage.approve.is_some()) || !plan.webhooks.is_empty() {
        notes.push("gates and webhooks say yes at once".into());
    }
    if !plan.freeze.is_empty() {
        notes.push("freeze windows are left out".into());
    }
    let canary = service.versions.iter().find(|(version, _)| *version != stable);
    let (canary, endpoints) = match canary {
        Some((version, definition)) => (version.to_string(), definition.endpoints.len()),
        // The next version is not written yet: as many endpoints as the present one.
        None => ("next".into(), service.versions.get(stable).map_or(1, |version| version.endpoints.len())),
    };
    let scenarios = scenarios(&args.scenarios)?;
    for scenario in &scenarios {
        scenario.fits(&plan).map_err(|why| Failure::Usage(format!("scenario `{}`: {why}", scenario.name)))?;
    }
    let recording = args.from_access_log.as_deref().map(|file| recording(file, name, stable)).transpose()?;
    let traffic = match &recording {
        Some(recording) => recording.traffic.clone(),
        None => Traffic::made(args.rps.unwrap_or(200.0), ERRORS, P50_MS, P95_MS),
    };
    let mut warnings = warnings(&shortfalls(&plan, traffic.rps()), traffic.rps());
    for scenario in scenarios.iter().filter(|_| !args.scenarios.is_empty()) {
        let Some(rps) = scenario.rps else { continue };
        let more = self::warnings(&shortfalls(&plan, rps), rps).into_iter();
        warnings.extend(more.map(|what| format!("scenario `{}`: {what}", scenario.name)));
    }
    let outcome = |scenario: &Scenario| {
        let pace = if args.exact { Pace::Every } else { Pace::Sparse };
        let sticky = service.sticky.is_some();
        let setup = Setup {
            plan: &plan,
            stable,
            canary: &canary,
            endpoints: endpoints.max(1),
            sticky,
            traffic: &traffic,
            scenario,
            pace,
        };
        let mut stories = all_runs(&setup, args.seed, args.runs);
        let summary = Summary::of(&stories);
        Outcome { scenario: scenario.name.clone(), summary, story: stories.swap_remove(0) }
    };
    Ok(Simulated {
        service: name.into(),
        stable: stable.to_string(),
        canary: canary.clone(),
        stages: plan.stages.iter().map(|stage| f64::from(share_of(stage)) / 1e4).collect(),
        rps: traffic.rps(),
        recorded: recording.zip(args.from_access_log.clone()).map(|(recording, file)| Recorded {
            file,
            requests: recording.requests,
            failed: recording.failed,
            seconds: recording.seconds,
            others: recording.others,
            unread: recording.unread,
        }),
        runs: args.runs,
        seed: args.seed,
        warnings,
        notes,
        scenarios: scenarios.iter().map(outcome).collect(),
    })
}

/// Stories of the seeds from `seed` on, in their order.
fn all_runs(setup: &Setup<'_>, seed: u64, runs: u64) -> Vec<Story> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let part = runs.div_ceil(cores);
    let of = |core: u64| (core * part..((core + 1) * part).min(runs)).map(|at| tell(setup, seed.wrapping_add(at)));
    let of = &of;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..cores).map(|core| scope.spawn(move || of(core).collect::<Vec<_>>())).collect();
        all.into_iter().flat_map(|one| one.join().expect("a simulation does not panic")).collect()
    })
}

/// Each word is a scenario, or the name of a file with some.
fn scenarios(words: &[String]) -> Result<Vec<Scenario>, Failure> {
    let mut scenarios = Vec::new();
    let defaults = Scenario::DEFAULTS.map(String::from);
    for word in if words.is_empty() { &defaults } else { words } {
        let file = Path::new(word);
        if file.is_file() {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(format!("cannot read the scenarios in {word}: {error}"), "it is a text file, one a line")
            })?;
            let more = Scenario::parse_all(&text)
                .map_err(|why| Failure::new(format!("{word}: {why}"), "see `switchback simulate --help`"))?;
            scenarios.extend(more);
        } else {
            let scenario = Scenario::parse(word).map_err(|why| {
                Failure::Usage(format!("scenario `{word}`: {why} (nor is there a file of that name)"))
            })?;
            scenarios.push(scenario);
        }
    }
    Ok(scenarios)
}

fn recording(file: &Path, service: &str, stable: &str) -> Result<Recording, Failure> {
    let unreadable = |error: std::io::Error| {
        let what = format!("cannot read the access log {}: {error}", file.display());
        Failure::new(what, "name a file that `access_log: { to: FILE }` has written")
    };
    let mut reader = BufReader::new(File::open(file).map_err(unreadable)?);
    let mut recorder = Recorder::new(service, stable);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        recorder.line(&String::from_utf8_lossy(&line));
    }
    recorder.finish().map_err(|why| {
        Failure::new(
            format!("the access log {} has nothing to go by: {why}", file.display()),
            "it must hold JSON lines of switchback's access log with good answers of the version that is active now",
        )
    })
}

fn warnings(short: &[Shortfall], rps: f64) -> Vec<String> {
    let rps = (rps * 1e3).round() / 1e3;
    let requests = if rps == 1.0 { "request" } else { "requests" };
    let warning = |it: &Shortfall| {
        format!(
            "stage {} % needs {} canary requests {}, and gets {} in {STAGES_LONGEST} x {} at {rps} {requests} a second",
            f64::from(it.share_bp) / 100.0,
            it.needs,
            it.what.purpose(),
            it.gets,
            write_time(it.within / STAGES_LONGEST),
        )
    };
    short.iter().map(warning).collect()
}

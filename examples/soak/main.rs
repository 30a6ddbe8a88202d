//! Hours of mixed load with something happening every few seconds, and not one failed request.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 30 --seed 7 [--every 5]
//! ```
//!
//! Starts the real `switchback` beside itself (and builds it first, in the same profile), with origins and clients in this
//! process. The same seed gives the same events at the same times. Ends with a table, and with 1 if a client saw anything
//! that was not declared, or if memory, descriptors or threads grew.

#[allow(dead_code, unused_imports, reason = "what the end-to-end tests are written with; not all of it is needed here")]
#[path = "../../tests/e2e/harness/mod.rs"]
mod harness;
mod run;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// How long the load runs
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Which events, in which order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds from one event to the next
    #[arg(long, default_value_t = 5.0)]
    every: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(why) = build() {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    let plan = run::Plan {
        length: Duration::from_secs_f64(arguments.minutes * 60.0),
        every: Duration::from_secs_f64(arguments.every),
        seed: arguments.seed,
        clients: 8,
        talks: true,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run::run(&plan));
    println!("{report}");
    if report.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds `switchback` in the profile that this was built in, where the harness finds it.
fn build() -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().and_then(|examples| examples.parent()).map(PathBuf::from);
    let folder = folder.ok_or("this program is in no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // With this example, so that both are built with the same features of what they share.
    command.args(["build", "--quiet", "--bin", "switchback", "--example", "soak", "--profile", profile]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("switchback could not be built: {status}")),
        // Started by hand, without cargo: then it has to be there.
        Err(_) if folder.join("switchback").is_file() => Ok(()),
        Err(error) => {
            Err(format!("there is no {}, and cargo cannot be started: {error}", folder.join("switchback").display()))
        }
    }
}

//! `switchback demo`.

use std::process::ExitCode;
use std::time::Duration;

use crate::admin::units::parse_duration;
use crate::demo::{self, DemoOptions, Fault};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What goes wrong with the third version; without it, the third fails and a fourth is slow
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// How long the show takes, about
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
}

pub fn run(args: Args) -> ExitCode {
    let faults = args.fault.map_or(vec![Fault::Errors, Fault::Latency], |fault| vec![fault]);
    demo::run(DemoOptions { faults, duration: args.duration })
}

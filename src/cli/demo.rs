//! `switchback demo`.

use std::process::ExitCode;
use std::time::Duration;

use crate::admin::units::parse_duration;
use crate::demo::{self, DemoOptions, Fault};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What goes wrong with the third version
    #[arg(long, value_enum, default_value = "errors")]
    fault: Fault,
    /// How long the show takes
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
}

pub fn run(args: Args) -> ExitCode {
    demo::run(DemoOptions { fault: args.fault, duration: args.duration })
}

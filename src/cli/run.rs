//! `switchback run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::instance;
use crate::worker::{self, RunOptions};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// File, or directory of files; default switchback.yaml or config/switchback.yaml
    #[arg(short, long, value_name = "PATH", env = "SWITCHBACK_CONFIG")]
    config: Option<PathBuf>,
    /// Threads that carry traffic; default one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(args: Args) -> ExitCode {
    match instance::config_path(args.config.as_deref()) {
        Ok(config) => worker::run(RunOptions { config, threads: args.threads.map(usize::from) }),
        Err(failure) => failure.report(),
    }
}

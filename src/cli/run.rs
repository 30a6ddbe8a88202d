//! `switchback run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::instance;
use crate::supervisor::{self, Beginning};
use crate::worker::{self, RunOptions};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// File, or directory of files; default switchback.yaml or config/switchback.yaml
    #[arg(short, long, value_name = "PATH", env = "SWITCHBACK_CONFIG")]
    config: Option<PathBuf>,
    /// Threads that carry traffic; default one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// One process alone: nothing restarts it, and an upgrade is a restart
    #[arg(long)]
    no_supervisor: bool,
    /// The private channel of a worker; given by the supervisor
    #[arg(long, value_name = "FD", hide = true, conflicts_with = "no_supervisor")]
    worker_fd: Option<i32>,
    /// What the program before has saved; given by it
    #[arg(long, value_name = "FD", hide = true, conflicts_with_all = ["no_supervisor", "worker_fd"])]
    resume_fd: Option<i32>,
    /// Only look at it
    #[arg(long, value_name = "FD", hide = true, conflicts_with_all = ["no_supervisor", "worker_fd", "resume_fd"])]
    resume_check_fd: Option<i32>,
}

pub fn run(args: Args) -> ExitCode {
    supervisor::name_process();
    if !args.no_supervisor && args.worker_fd.is_none() {
        let beginning = match (args.resume_fd, args.resume_check_fd) {
            (Some(fd), _) => Beginning::Resumed(fd),
            (None, Some(fd)) => Beginning::Check(fd),
            (None, None) => Beginning::New,
        };
        return supervisor::run(supervisor::arguments(), beginning);
    }
    match instance::config_path(args.config.as_deref()) {
        Ok(config) => {
            let threads = args.threads.map(usize::from);
            worker::run(RunOptions { config, threads, supervisor: args.worker_fd })
        }
        Err(failure) => failure.report(),
    }
}

//! Builds everything from one configuration; the only place that wires. And takes it down again.

mod above;
pub mod instance;
pub mod shutdown;
pub mod signals;
mod successor;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::control::Source;
use crate::sockets::{Direct, Sockets};
use above::Above;
pub use instance::Instance;

/// What `switchback run` was told.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// A configuration file, or a directory of them.
    pub config: PathBuf,
    /// Data threads; default one per core.
    pub threads: Option<usize>,
    /// The private channel to the supervisor that started this process.
    pub supervisor: Option<i32>,
}

/// Serves until SIGTERM or SIGINT. 0: all work finished; 3: some was cut; 1: could not start.
pub fn run(options: RunOptions) -> ExitCode {
    if let Err(error) = crate::telemetry::logs::init() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let signals = match signals::Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let threads = options.threads.unwrap_or_else(crate::engine::threads::default_count);
    let (above, orders) = match options.supervisor.map(Above::connect).transpose() {
        Ok(above) => above.unzip(),
        Err(error) => {
            eprintln!("error: there is no supervisor behind the descriptor that was named: {error}");
            return ExitCode::FAILURE;
        }
    };
    let sockets: Arc<dyn Sockets> = match &above {
        Some(above) => above.clone(),
        None => Arc::new(Direct::with_inherited()),
    };
    match Instance::start_with(Source::File(options.config), threads, sockets, above) {
        Ok(instance) => signals::serve(instance, signals, orders),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

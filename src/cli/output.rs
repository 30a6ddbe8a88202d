//! To the terminal, or to whatever stdout is; and the small runtime that commands run on.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;

/// Colour is for people: on a terminal, and unless `NO_COLOR` asks for none (no-color.org).
pub fn colour() -> bool {
    wants_colour(io::stdout().is_terminal())
}

pub fn colour_on_stderr() -> bool {
    wants_colour(io::stderr().is_terminal())
}

fn wants_colour(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A reader that has seen enough (`| head`) ends the command quietly, as it does for other tools.
pub fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::Failed { what: format!("cannot write to stdout: {error}"), hint: None }),
    }
}

/// Nobody can be told that stderr is gone.
pub fn err(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("our own types have string keys and cannot fail");
    out(&format!("{text}\n"))
}

pub fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed { what: format!("cannot start: {error}"), hint: None })?;
    runtime.block_on(command)
}

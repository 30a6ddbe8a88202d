//! Arguments in, exit code out: one file per command.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    unimplemented!()
}

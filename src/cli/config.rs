//! `switchback config schema` and `switchback config init`: help for those who write a configuration.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::schema;

/// What `init` writes: a commented configuration that works.
pub const EXAMPLE: &str = include_str!("../../config/minimal.yaml");

/// Prints the JSON Schema.
pub fn schema() -> ExitCode {
    print(&schema::text())
}

/// Writes the example to `path` (by default `switchback.yaml`), or prints it for `-`. An existing file is kept
/// unless `force`.
pub fn init(path: Option<&Path>, force: bool) -> ExitCode {
    let path = path.unwrap_or(Path::new("switchback.yaml"));
    if path == Path::new("-") {
        return print(EXAMPLE);
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    if force {
        options.truncate(true)
    } else {
        options.create_new(true)
    };
    match options.open(path).and_then(|mut file| file.write_all(EXAMPLE.as_bytes())) {
        Ok(()) => {
            let path = path.display();
            eprintln!("wrote {path}; next: switchback check -c {path}, then switchback run -c {path}");
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            eprintln!(
                "error: {} exists already\n  = help: name another file, or write over it with --force",
                path.display()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {} cannot be written: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // `| head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: stdout cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_kept_unless_forced() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("switchback.yaml");
        assert_eq!(init(Some(&path), false), ExitCode::SUCCESS);
        std::fs::write(&path, "mine, and longer than nothing").expect("the file is writable");
        assert_eq!(init(Some(&path), false), ExitCode::FAILURE);
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "mine, and longer than nothing");
        assert_eq!(init(Some(&path), true), ExitCode::SUCCESS);
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), EXAMPLE);
        assert_eq!(init(Some(&dir.path().join("no/such/folder")), false), ExitCode::FAILURE);
    }
}

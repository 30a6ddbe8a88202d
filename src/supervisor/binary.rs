//! Which program a worker is started from.
//!
//! The known good one is kept open: when a worker dies after somebody has put a bad file in its place, the next
//! one still starts from the very program that was ready before.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::replace::SavedBinary;
use super::sys;

#[derive(Debug)]
pub struct Binary {
    pub path: PathBuf,
    /// Of what is at `path`, or was.
    open: Option<File>,
}

impl Binary {
    /// The one that runs.
    pub fn own() -> io::Result<Binary> {
        let path = std::env::current_exe()?;
        // `/proc` may be missing in a bare container; then the path has to do.
        let open = File::open("/proc/self/exe").or_else(|_| File::open(&path)).ok();
        Ok(Binary { path, open })
    }

    /// The one an operator has started, as it lies there now.
    pub fn again(path: &Path) -> Result<Binary, String> {
        let open = File::open(path).map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
        Ok(Binary { path: path.to_path_buf(), open: Some(open) })
    }

    /// One that somebody wants to run. Refused if others than its owner could have written it: whoever may ask for
    /// an upgrade is not to run what a stranger left in a shared folder.
    pub fn wanted(path: &Path) -> Result<Binary, String> {
        let shown = path.display();
        if !path.is_absolute() {
            return Err(format!("{shown} is not an absolute path"));
        }
        let open = File::open(path).map_err(|error| format!("{shown} cannot be opened: {error}"))?;
        let metadata = open.metadata().map_err(|error| format!("{shown} cannot be looked at: {error}"))?;
        // SAFETY: always succeeds.
        let own = unsafe { libc::geteuid() };
        if !metadata.is_file() {
            Err(format!("{shown} is not a file"))
        } else if metadata.mode() & 0o111 == 0 {
            Err(format!("{shown} is not executable (mode {:04o}): chmod +x", metadata.mode() & 0o7777))
        } else if metadata.mode() & 0o022 != 0 {
            let mode = metadata.mode() & 0o7777;
            Err(format!("{shown} can be written by others than its owner (mode {mode:04o}): chmod go-w"))
        } else if ![0, own].contains(&metadata.uid()) {
            let owner = metadata.uid();
            Err(format!(
                "{shown} belongs to user {owner}: it must belong to root or to the user that runs switchback ({own})"
            ))
        } else {
            Ok(Binary { path: path.to_path_buf(), open: Some(open) })
        }
    }

    /// As it was before this process became another program.
    pub fn restored(saved: SavedBinary) -> io::Result<Binary> {
        let open = match saved.fd {
            Some(fd) => {
                sys::keep_over_exec(fd, false)?;
                // SAFETY: it is open, as was just seen, and was saved by the program that this process was before.
                Some(unsafe { File::from_raw_fd(fd) })
            }
            None => None,
        };
        Ok(Binary { path: saved.path, open })
    }

    pub fn saved(&self) -> SavedBinary {
        SavedBinary { path: self.path.clone(), fd: self.open.as_ref().map(|open| open.as_raw_fd()) }
    }

    /// What to execute, as long as this is not dropped. A script is run by its path: its interpreter could not
    /// open a descriptor that is closed by then.
    pub fn program(&self) -> OsString {
        match &self.open {
            Some(open) if is_elf(open) && Path::new("/proc/self/fd").exists() => {
                format!("/proc/self/fd/{}", open.as_raw_fd()).into()
            }
            Some(_) | None => self.path.clone().into(),
        }
    }
}

fn is_elf(mut file: &File) -> bool {
    use std::io::Seek;
    let mut magic = [0; 4];
    file.rewind().and_then(|()| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        assert!(Binary::wanted(&path).expect_err("missing").contains("cannot be opened"));
        std::fs::write(&path, "#!/bin/sh\n").expect("ours");
        for (mode, says) in [(0o644, "not executable"), (0o775, "others"), (0o757, "others")] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
            let why = Binary::wanted(&path).expect_err(says);
            assert!(why.contains(says), "{why}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let script = Binary::wanted(&path).expect("as it should be");
        assert_eq!(script.program(), path.as_os_str(), "a script is run by its path");
        assert!(Binary::wanted(dir.path()).expect_err("a folder").contains("not a file"));
        assert!(Binary::wanted(Path::new("program")).expect_err("relative").contains("absolute"));
    }

    #[test]
    fn the_program_survives_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("true");
        std::fs::copy("/bin/true", &path).expect("there");
        let binary = Binary::wanted(&path).expect("as it should be");
        std::fs::remove_file(&path).expect("ours");
        assert!(std::process::Command::new(binary.program()).status().expect("it is open").success());
    }
}

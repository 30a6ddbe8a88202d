//! The wall clock that the processes see, and its jumps. See `clock.c` for how.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds from the true time, one after the other: forward, back again, into the past, years away.
const JUMPS: [i64; 6] = [3600, 0, -7200, 40 * 86_400, -86_400, 3 * 365 * 86_400];

pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// The error says why there is none.
    pub fn new(folder: &Path) -> Result<Clock, String> {
        let (source, library, file) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("clock"));
        std::fs::write(&source, include_str!("../clock.c")).map_err(|error| error.to_string())?;
        std::fs::write(&file, 0i64.to_ne_bytes()).map_err(|error| error.to_string())?;
        let mut command = Command::new("cc");
        command.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        match command.output() {
            Ok(ran) if ran.status.success() => Ok(Clock { library, file }),
            Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).trim().to_string()),
            Err(error) => Err(format!("no C compiler: {error}")),
        }
    }

    /// For a process and all that it starts.
    pub fn wind(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("SOAK_CLOCK", &self.file);
    }

    /// Seconds from the true time from now on.
    pub fn jump(&self, roll: u64) -> i64 {
        let by = JUMPS[(roll % JUMPS.len() as u64) as usize];
        let file = std::fs::File::options().write(true).open(&self.file).expect("the folder is ours");
        file.write_all_at(&by.to_ne_bytes(), 0).expect("the folder is ours");
        by
    }
}

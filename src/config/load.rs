//! Files to text to [`Config`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model::Config;
use super::problem::Problems;

/// One source file as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// A configuration with where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Arc<Config>,
    pub sources: Vec<Source>,
    /// SHA-256 over names and contents of the sources, hex.
    pub hash: String,
    /// Warnings; never errors.
    pub warnings: Problems,
}

/// Reads a file, or every `*.yaml`/`*.yml` of a directory in name order.
pub fn read(_path: &Path) -> Result<Vec<Source>, Problems> {
    unimplemented!()
}

/// Hash of sources, as in [`Loaded::hash`].
pub fn hash(_sources: &[Source]) -> String {
    unimplemented!()
}

/// Parses, merges, checks. All problems at once. Relative paths in the file are taken relative to the
/// directory of the file that names them.
pub fn parse(_sources: Vec<Source>) -> Result<Loaded, Problems> {
    unimplemented!()
}

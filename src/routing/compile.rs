//! [`Config`] → [`Table`], and the split that the file's intent means.

use std::sync::Arc;

use super::split::{Share, Split};
use super::table::{CompiledService, Table};
use crate::config::model::Config;

/// Why a checked configuration cannot be compiled (a pattern too large, too many services).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("route `{route}`: the path_regex cannot be compiled: {reason}")]
    Regex { route: String, reason: String },
    #[error("{count} services; at most {max} are possible")]
    TooManyServices { count: usize, max: usize },
}

pub fn compile(_config: Arc<Config>) -> Result<Table, CompileError> {
    unimplemented!()
}

/// The shares that the file asks for, by `VersionIdx`.
pub fn intended_shares(_service: &CompiledService) -> Vec<Share> {
    unimplemented!()
}

pub fn split_from(_service: &CompiledService, _shares: Vec<Share>, _threads: usize) -> Arc<Split> {
    unimplemented!()
}

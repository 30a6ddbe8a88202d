//! A configuration on its way to become a generation: parsed, compiled and proven, but not published.
//!
//! Built by whoever asks, off the writer's task, so that a long compile never stands in the way of a
//! rollback.

use std::sync::Arc;
use std::time::Instant;

use super::api::Refused;
use super::expect;
use crate::config::certificate::Dates;
use crate::config::load::{self, Source};
use crate::config::{Problem, Problems, Severity};
use crate::routing::Table;
use crate::routing::compile::compile;
use crate::telemetry::names;

#[derive(Debug)]
pub(crate) struct Candidate {
    pub table: Arc<Table>,
    pub sources: Arc<Vec<Source>>,
    /// SHA-256 over names and contents of the sources.
    pub hash: String,
    pub warnings: Problems,
}

impl Candidate {
    /// Everything that can be wrong with a text is found here, before anything changes.
    pub fn build(sources: Vec<Source>, dates: &Dates) -> Result<Candidate, Problems> {
        let began = Instant::now();
        let loaded = load::parse_dated(sources, dates)?;
        let table = compile(loaded.config).map_err(|error| problem(error.to_string()))?;
        expect::check(&table)?;
        metrics::histogram!(names::CONFIG_COMPILE_SECONDS).record(began.elapsed().as_secs_f64());
        Ok(Candidate {
            table: Arc::new(table),
            sources: Arc::new(loaded.sources),
            hash: loaded.hash,
            warnings: loaded.warnings,
        })
    }

    /// [`Candidate::build`] without holding up other tasks.
    pub async fn build_aside(sources: Vec<Source>, dates: Dates) -> Result<Candidate, Problems> {
        let built = tokio::task::spawn_blocking(move || Candidate::build(sources, &dates)).await;
        built.unwrap_or_else(|error| Err(problem(format!("the configuration could not be compiled: {error}"))))
    }
}

pub(crate) fn problem(what: String) -> Problems {
    Problems(vec![Problem { severity: Severity::Error, what, place: None, why: None, hint: None }])
}

pub(crate) fn invalid(problems: &Problems) -> Refused {
    Refused::Invalid { problems: problems.0.clone(), rendered: problems.to_string() }
}

/// The same text, wherever it was read from.
pub(crate) fn same_text(one: &[Source], other: &[Source]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.text == other.text)
}

//! One thing that is wrong with a configuration: what, where, why, and what to do.

use serde::Serialize;

/// A place in a source file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub struct Place {
    pub file: String,
    pub line: u64,
    pub column: u64,
    /// Characters to underline, at least 1.
    pub width: u64,
    /// The text of that line, cut to a readable length.
    pub snippet: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    /// Published all the same; shown in `check`, `plan` and `status`.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Problem {
    pub severity: Severity,
    /// What is wrong, in one clause without a full stop: "service `api` has no version `gren`".
    pub what: String,
    /// `None` only for problems of no single place (an unreadable file, an empty directory).
    pub place: Option<Place>,
    /// Shown beside the caret: "its versions are `blue` and `green`".
    pub why: Option<String>,
    /// What to do: "did you mean `green`?".
    pub hint: Option<String>,
}

/// Everything wrong with one configuration, in file order. Never empty when used as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }
}

impl std::error::Error for Problems {}

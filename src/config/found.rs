//! What a pass over the text has found so far: problems with spans instead of line numbers.
//!
//! A span is two byte offsets, so it costs nothing to carry through every value; it becomes a
//! [`Place`] only when there is something to say. Problems are collected, never returned early: a
//! configuration is reported whole.

use super::load::Source;
use super::problem::{Place, Problem, Problems, Severity};

/// A stretch of one source file, in bytes. Orders by file, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// One problem; the parts are those of [`Problem`].
#[derive(Debug, Clone)]
pub struct Finding {
    pub severity: Severity,
    pub span: Option<Span>,
    pub what: String,
    pub why: Option<String>,
    pub hint: Option<String>,
}

impl Finding {
    pub fn why(&mut self, why: impl Into<String>) -> &mut Self {
        self.why = Some(why.into());
        self
    }

    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn maybe_hint(&mut self, hint: Option<String>) -> &mut Self {
        if hint.is_some() {
            self.hint = hint;
        }
        self
    }
}

/// The collected findings of one configuration.
#[derive(Debug, Default)]
pub struct Found {
    findings: Vec<Finding>,
    errors: usize,
    /// Findings that were not kept.
    dropped: usize,
}

/// More than this many problems help nobody; the rest is counted.
const REPORTED_MAX: usize = 200;
/// More than this many are not even kept: a hostile file must not cost memory.
const KEPT_MAX: usize = 5_000;

impl Found {
    pub fn error(&mut self, span: Span, what: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, Some(span), what.into())
    }

    pub fn warning(&mut self, span: Span, what: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, Some(span), what.into())
    }

    /// For what no single place is to blame.
    pub fn error_nowhere(&mut self, what: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, None, what.into())
    }

    pub fn warning_nowhere(&mut self, what: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, None, what.into())
    }

    /// Nothing further will be shown: expensive details can be left out.
    pub fn is_full(&self) -> bool {
        self.findings.len() > REPORTED_MAX
    }

    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub fn errors(&self) -> usize {
        self.errors
    }

    /// In file order, with places. Problems of no place come last.
    pub fn into_problems(mut self, sources: &[Source]) -> Problems {
        self.findings.sort_by_key(|finding| (finding.span.is_none(), finding.span));
        let more = self.findings.len().saturating_sub(REPORTED_MAX) + self.dropped;
        self.findings.truncate(REPORTED_MAX);
        let mut places = Places::new(sources);
        let mut problems: Vec<Problem> = self
            .findings
            .into_iter()
            .map(|found| Problem {
                severity: found.severity,
                what: found.what,
                place: found.span.map(|span| places.of(span)),
                why: found.why,
                hint: found.hint,
            })
            .collect();
        if more > 0 {
            problems.push(Problem {
                severity: Severity::Error,
                what: format!("{more} more problems are not shown"),
                place: None,
                why: None,
                hint: Some("correct the first ones and check again".into()),
            });
        }
        Problems(problems)
    }

    fn push(&mut self, severity: Severity, span: Option<Span>, what: String) -> &mut Finding {
        self.errors += usize::from(severity == Severity::Error);
        if self.findings.len() >= KEPT_MAX {
            self.findings.pop();
            self.dropped += 1;
        }
        self.findings.push(Finding { severity, span, what, why: None, hint: None });
        self.findings.last_mut().expect("one was pushed on the line above")
    }
}

/// Turns spans into lines and columns. Spans should come in file order: then each file is walked once.
pub struct Places<'a> {
    sources: &'a [Source],
    file: u32,
    line: u64,
    line_start: usize,
}

/// Longer lines are shown from a little before the mark on, behind an ellipsis.
const SNIPPET_MAX: usize = 160;
const SNIPPET_BEFORE: usize = 40;
/// Column of the mark in a snippet that begins with an ellipsis.
pub(super) const CUT_MARK_COLUMN: usize = SNIPPET_BEFORE + 2;
pub(super) const CUT: char = '…';

impl<'a> Places<'a> {
    pub fn new(sources: &'a [Source]) -> Self {
        Self { sources, file: 0, line: 1, line_start: 0 }
    }

    pub fn of(&mut self, span: Span) -> Place {
        let source = &self.sources[span.file as usize];
        let text = source.text.as_str();
        let start = floor_char_boundary(text, span.start as usize);
        if self.file != span.file || start < self.line_start {
            (self.file, self.line, self.line_start) = (span.file, 1, 0);
        }
        while let Some(end) = text[self.line_start..start].find('\n') {
            self.line_start += end + 1;
            self.line += 1;
        }
        let line = text[self.line_start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = text[self.line_start..start].chars().count();
        let end = floor_char_boundary(text, (span.end as usize).max(start)).min(self.line_start + line.len());
        let width = if end > start { text[start..end].chars().count() } else { 1 };
        let (snippet, width) = snippet(line, column, width.max(1));
        Place {
            file: source.path.display().to_string(),
            line: self.line,
            column: column as u64 + 1,
            width: width as u64,
            snippet,
        }
    }
}

/// The line as shown, tabs as one blank so that the mark stands right.
fn snippet(line: &str, column: usize, width: usize) -> (String, usize) {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if line.chars().count() <= SNIPPET_MAX {
        return (line.chars().map(clean).collect(), width);
    }
    if column + width <= SNIPPET_MAX {
        let mut cut: String = line.chars().take(SNIPPET_MAX).map(clean).collect();
        cut.push(CUT);
        return (cut, width);
    }
    if column <= SNIPPET_BEFORE {
        return (line.chars().take(SNIPPET_MAX).map(clean).collect(), SNIPPET_MAX - column);
    }
    let mut cut = String::from(CUT);
    cut.extend(line.chars().skip(column - SNIPPET_BEFORE).take(SNIPPET_MAX).map(clean));
    (cut, width.min(SNIPPET_MAX - SNIPPET_BEFORE))
}

fn floor_char_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

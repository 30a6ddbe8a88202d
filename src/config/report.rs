//! Problems as text: for people, for GitHub annotations, as JSON.

use std::fmt;

use super::found::{CUT, CUT_MARK_COLUMN};
use super::problem::{Place, Problem, Problems, Severity};

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(None).trim_end_matches('\n'))
    }
}

/// Parts of a report that a terminal may colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Error,
    Warning,
    /// Line numbers, arrows, bars.
    Frame,
    Mark,
    Label,
}

impl Problems {
    /// One block per problem, separated by empty lines, each line ended. `note` is said once, at the end
    /// of the last error: "nothing changed, generation 41 keeps serving".
    pub fn render(&self, note: Option<&str>) -> String {
        self.render_with(note, |_, text| text.to_owned())
    }

    /// [`Self::render`] with every part passed through `paint`.
    pub fn render_with(&self, note: Option<&str>, paint: impl Fn(Part, &str) -> String) -> String {
        let noted = self.0.iter().rposition(|problem| problem.severity == Severity::Error);
        let mut out = String::new();
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            block(&mut out, problem, note.filter(|_| noted == Some(at)), &paint);
        }
        out
    }

    /// GitHub workflow commands, one line each.
    pub fn render_github(&self) -> String {
        let mut out = String::new();
        for problem in &self.0 {
            let kind = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let place = problem.place.as_ref().map(|place| {
                let end = place.column + place.width;
                let (file, line, column) = (property(&place.file), place.line, place.column);
                format!(" file={file},line={line},col={column},endColumn={end}")
            });
            let mut text = problem.what.clone();
            if let Some(why) = &problem.why {
                text = format!("{text}: {why}");
            }
            if let Some(hint) = &problem.hint {
                text = format!("{text} (help: {hint})");
            }
            out.push_str(&format!("::{kind}{}::{}\n", place.unwrap_or_default(), escape(&text)));
        }
        out
    }

    /// `{"ok": …, "problems": […]}`.
    pub fn render_json(&self) -> String {
        let value = serde_json::json!({ "ok": !self.has_errors(), "problems": self.0 });
        let text = serde_json::to_string_pretty(&value).expect("problems are plain data");
        format!("{text}\n")
    }
}

fn block(out: &mut String, problem: &Problem, note: Option<&str>, paint: &impl Fn(Part, &str) -> String) {
    let (part, kind) = match problem.severity {
        Severity::Error => (Part::Error, "error"),
        Severity::Warning => (Part::Warning, "warning"),
    };
    out.push_str(&format!("{}: {}\n", paint(part, kind), problem.what));
    let gutter = problem.place.as_ref().map_or(1, |place| place.line.to_string().len());
    let blank = " ".repeat(gutter);
    match &problem.place {
        Some(place) => snippet(out, place, problem.why.as_deref(), &blank, paint),
        None => {
            if let Some(why) = &problem.why {
                out.push_str(&format!("{blank} {} {}: {why}\n", paint(Part::Frame, "="), paint(Part::Label, "why")));
            }
        }
    }
    for (label, text) in [("help", problem.hint.as_deref()), ("note", note)] {
        if let Some(text) = text {
            out.push_str(&format!("{blank} {} {}: {text}\n", paint(Part::Frame, "="), paint(Part::Label, label)));
        }
    }
}

fn snippet(out: &mut String, place: &Place, why: Option<&str>, blank: &str, paint: &impl Fn(Part, &str) -> String) {
    let (arrow, bar) = (paint(Part::Frame, "-->"), paint(Part::Frame, "|"));
    out.push_str(&format!("{blank} {arrow} {}:{}:{}\n", place.file, place.line, place.column));
    let line = paint(Part::Frame, &place.line.to_string());
    out.push_str(format!("{line} {bar} {}", place.snippet).trim_end());
    let column = if place.snippet.starts_with(CUT) { CUT_MARK_COLUMN } else { place.column as usize };
    let marks = paint(Part::Mark, &"^".repeat(place.width as usize));
    let why = why.map(|why| format!(" {}", paint(Part::Mark, why))).unwrap_or_default();
    out.push_str(&format!("\n{blank} {bar} {}{marks}{why}\n", " ".repeat(column - 1)));
}

/// Newlines and percent signs end or begin a command.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escape(text).replace(':', "%3A").replace(',', "%2C")
}

//! `switchback check`: everything wrong with a configuration, without running it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use owo_colors::OwoColorize;

use crate::config::load;
use crate::config::problem::{Problems, Severity};
use crate::config::report::Part;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people: the line, the place, the reason, what to do.
    #[default]
    Human,
    /// `{"ok": …, "problems": […]}` on stdout.
    Json,
    /// GitHub workflow commands on stdout: annotations in pull requests.
    Github,
}

/// 0 if the configuration would be accepted, warnings or not; 1 if not.
pub fn run(config: &Path, format: Format) -> ExitCode {
    let loaded = load::read(config).and_then(load::parse);
    let (problems, summary) = match &loaded {
        Ok(loaded) => {
            let (config, warnings) = (&loaded.config, loaded.warnings.0.len());
            let mut summary = format!(
                "ok: {}, {}, {}, {}",
                count(config.listeners.len(), "listener"),
                count(config.routes.len(), "route"),
                count(config.services.len(), "service"),
                count(config.expect.len(), "case"),
            );
            if warnings > 0 {
                summary.push_str(&format!("; {}", count(warnings, "warning")));
            }
            (&loaded.warnings, summary)
        }
        Err(problems) => (problems, summary(problems)),
    };
    // Errors of a check for people go where errors go; what programs asked for is output either way.
    let written = match format {
        Format::Human if loaded.is_ok() => {
            let terminal = std::io::stdout().is_terminal();
            std::io::stdout().write_all(human(problems, &summary, terminal).as_bytes())
        }
        Format::Human => {
            let terminal = std::io::stderr().is_terminal();
            std::io::stderr().write_all(human(problems, &summary, terminal).as_bytes())
        }
        Format::Json => std::io::stdout().write_all(problems.render_json().as_bytes()),
        Format::Github => std::io::stdout().write_all(problems.render_github().as_bytes()),
    };
    // A reader that went away has seen enough; the exit code still tells.
    let _ = written;
    if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The report, coloured if it goes to a terminal and NO_COLOR is not set.
pub fn paint(problems: &Problems, note: Option<&str>, terminal: bool) -> String {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if no_color || !terminal {
        return problems.render(note);
    }
    problems.render_with(note, |part, text| match part {
        Part::Error | Part::Mark => text.red().bold().to_string(),
        Part::Warning => text.yellow().bold().to_string(),
        Part::Frame => text.blue().bold().to_string(),
        Part::Label => text.bold().to_string(),
    })
}

fn human(problems: &Problems, summary: &str, terminal: bool) -> String {
    let mut text = paint(problems, None, terminal);
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(summary);
    text.push('\n');
    text
}

fn summary(problems: &Problems) -> String {
    let errors = problems.0.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.0.len() - errors;
    let mut text = format!("refused: {}", count(errors, "error"));
    if warnings > 0 {
        text.push_str(&format!(", {}", count(warnings, "warning")));
    }
    text
}

fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Source, parse_with};

    fn problems(text: &str) -> Problems {
        let sources = vec![Source { path: "f.yaml".into(), text: text.into() }];
        parse_with(sources, &|_| None).map_or_else(|problems| problems, |loaded| loaded.warnings)
    }

    #[test]
    fn colour_adds_escapes_and_nothing_else() {
        let problems = problems("listeners: {}\nbackends: {}\n");
        let plain = paint(&problems, Some("nothing changed"), false);
        let coloured = problems.render_with(Some("nothing changed"), |_, text| format!("\u{1b}[1m{text}\u{1b}[0m"));
        assert_ne!(plain, coloured);
        assert_eq!(plain, coloured.replace("\u{1b}[1m", "").replace("\u{1b}[0m", ""));
    }

    #[test]
    fn the_last_line_counts() {
        let problems = problems("listeners: {}\nbackends: {}\n");
        assert_eq!(summary(&problems), "refused: 2 errors, 1 warning");
        assert!(human(&problems, "refused: 2 errors", false).ends_with("\n\nrefused: 2 errors\n"));
    }

    #[test]
    fn the_exit_code_tells() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("f.yaml");
        for (text, code) in [(crate::cli::config::EXAMPLE, ExitCode::SUCCESS), ("nonsense", ExitCode::FAILURE)] {
            std::fs::write(&path, text).expect("the directory is writable");
            assert_eq!(run(&path, Format::Json), code, "{text}");
        }
        assert_eq!(run(&dir.path().join("nowhere"), Format::Github), ExitCode::FAILURE);
    }
}

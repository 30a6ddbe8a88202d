//! The program's own log: structured, on stderr.
//!
//! `SWITCHBACK_LOG` says what is logged (`info`, or per module as in `info,switchback::control=debug`);
//! `SWITCHBACK_LOG_FORMAT` says how: `text`, `json`, or `auto`, which is text on a terminal and JSON
//! elsewhere. The HTTP engine's log is off unless asked for (`info,pingora=warn`): it has a line for
//! every failed request, which clients could use to fill a disk, and the failures are in the metrics
//! and in the access log.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub const LEVEL_VARIABLE: &str = "SWITCHBACK_LOG";
pub const FORMAT_VARIABLE: &str = "SWITCHBACK_LOG_FORMAT";

/// In front of what the user says, so that the user can override it.
const ALWAYS: &str = "pingora=off";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Begins to log as the environment says. An error names the variable and what is wrong with it.
pub fn init() -> Result<(), String> {
    let filter = filter(std::env::var(LEVEL_VARIABLE).ok().as_deref())?;
    let stderr = std::io::stderr();
    let format = format(std::env::var(FORMAT_VARIABLE).ok().as_deref(), stderr.is_terminal())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Told on stderr, which is what cannot be written; and that is a panic of whoever wanted to log.
        .log_internal_errors(false);
    let begun = match format {
        Format::Text => {
            let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.with_ansi(colour).try_init()
        }
        Format::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    begun.map_err(|error| format!("the log cannot be set up: {error}"))
}

fn filter(wanted: Option<&str>) -> Result<EnvFilter, String> {
    let wanted = wanted.filter(|wanted| !wanted.trim().is_empty()).unwrap_or("info");
    EnvFilter::try_new(format!("{ALWAYS},{wanted}"))
        .map_err(|error| format!("{LEVEL_VARIABLE}: `{wanted}` is not understood: {error}"))
}

fn format(wanted: Option<&str>, terminal: bool) -> Result<Format, String> {
    match wanted.unwrap_or("auto") {
        "" | "auto" if terminal => Ok(Format::Text),
        "" | "auto" | "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        other => Err(format!("{FORMAT_VARIABLE}: `{other}` is not a format: use `auto`, `text` or `json`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_the_variable_and_then_the_terminal() {
        for (wanted, terminal, format) in [
            (None, true, Format::Text),
            (None, false, Format::Json),
            (Some("auto"), false, Format::Json),
            (Some("text"), false, Format::Text),
            (Some("json"), true, Format::Json),
        ] {
            assert_eq!(super::format(wanted, terminal), Ok(format), "{wanted:?} {terminal}");
        }
        assert!(format(Some("xml"), true).expect_err("unknown").contains("SWITCHBACK_LOG_FORMAT"));
    }

    #[test]
    fn the_engine_is_silent_unless_asked_for() {
        for (wanted, shown) in [(None, "info,pingora=off"), (Some("warn"), "warn,pingora=off")] {
            let filter = filter(wanted).expect("valid").to_string();
            let (mut have, mut want): (Vec<_>, Vec<_>) = (filter.split(',').collect(), shown.split(',').collect());
            have.sort_unstable();
            want.sort_unstable();
            assert_eq!(have, want);
        }
        let asked = filter(Some("info,pingora=debug")).expect("valid").to_string();
        assert!(asked.contains("pingora=debug") && !asked.contains("off"), "{asked}");
        assert!(filter(Some("shop=loud")).expect_err("no such level").contains("SWITCHBACK_LOG"));
    }
}

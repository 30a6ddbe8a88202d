//! Why a command did not do what it was asked to, told once on stderr.

use std::process::ExitCode;

use owo_colors::OwoColorize;

use super::output;
use crate::admin::Refusal;

#[derive(Debug)]
pub enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed { what: String, hint: Option<String> },
    /// The instance said no. Exit code 1.
    Refused(Box<Refusal>),
}

impl Failure {
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::Failed { what: what.into(), hint: Some(hint.into()) }
    }

    pub fn report(self) -> ExitCode {
        output::err(&self.text(output::colour_on_stderr()));
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Failed { .. } | Failure::Refused(_) => ExitCode::FAILURE,
        }
    }

    fn text(&self, colour: bool) -> String {
        let label = if colour { "error".red().bold().to_string() } else { "error".into() };
        let with_hint = |what: &str, hint: Option<&str>| match hint {
            Some(hint) => format!("{label}: {what}\n  = help: {hint}\n"),
            None => format!("{label}: {what}\n"),
        };
        match self {
            Failure::Usage(what) => with_hint(what, Some("see `switchback help`")),
            Failure::Failed { what, hint } => with_hint(what, hint.as_deref()),
            Failure::Refused(refusal) => match &refusal.rendered {
                // Each problem already says what, where and why.
                Some(rendered) if !rendered.is_empty() => format!("{}\n", rendered.trim_end()),
                Some(_) | None => with_hint(&refusal.detail, refusal.hint.as_deref()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_and_what_to_do() {
        let refusal = Refusal {
            detail: "service `shop` has no version `v9`".into(),
            hint: Some("its versions are `v1` and `v2`".into()),
            ..Refusal::default()
        };
        insta::assert_snapshot!(Failure::Refused(Box::new(refusal)).text(false), @r"
        error: service `shop` has no version `v9`
          = help: its versions are `v1` and `v2`
        ");
    }

    #[test]
    fn problems_of_a_configuration_are_shown_as_rendered() {
        let refusal = Refusal { rendered: Some("error: a\n\nerror: b\n".into()), ..Refusal::default() };
        assert_eq!(Failure::Refused(Box::new(refusal)).text(false), "error: a\n\nerror: b\n");
    }
}

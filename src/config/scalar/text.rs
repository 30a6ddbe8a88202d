//! Text, names, switches, whole numbers.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};
use super::super::hint;

/// Text that is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl Scalar for Text {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            return Err(Wrong::because("it must not be empty"));
        }
        Ok(Self(text.to_owned()))
    }
    fn shape() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Any text, also none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnyText(pub String);

impl Scalar for AnyText {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(text.to_owned()))
    }
    fn shape() -> Json {
        json!({ "type": "string" })
    }
}

/// A name of a listener, route, service or version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name(pub String);

impl Scalar for Name {
    const KIND: &'static str = "a name";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !first || !rest || text.len() > 64 {
            return Err(Wrong::because("names are 1 to 64 of `A-Z a-z 0-9 . _ -` and begin with a letter or digit"));
        }
        Ok(Self(text.to_owned()))
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" })
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

impl Scalar for Flag {
    const KIND: &'static str = "`true` or `false`";
    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "true" | "True" | "TRUE" => Ok(Self(true)),
            "false" | "False" | "FALSE" => Ok(Self(false)),
            "yes" | "on" | "y" | "1" => Err(Wrong::because("write `true` or `false`").hint("did you mean `true`?")),
            "no" | "off" | "n" | "0" => Err(Wrong::because("write `true` or `false`").hint("did you mean `false`?")),
            _ => Err(Wrong::because("write `true` or `false`")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number with its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Scalar for Count<MIN, MAX> {
    const KIND: &'static str = "a whole number";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let bounds = || Wrong::because(format!("a whole number from {MIN} to {MAX}"));
        match text.parse::<u64>() {
            Ok(number) if (MIN..=MAX).contains(&number) && text.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Self(number))
            }
            Ok(_) => Err(bounds()),
            Err(_) => Err(match text.strip_suffix('%').map(str::trim) {
                Some(number) if number.parse::<u64>().is_ok() => bounds().hint(format!("write `{number}`")),
                _ => bounds(),
            }),
        }
    }
    fn shape() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// The weight of a version in a split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight(pub u32);

pub const WEIGHT_MAX: u64 = 1_000_000;

impl Scalar for Weight {
    const KIND: &'static str = "a weight";
    fn parse(text: &str) -> Result<Self, Wrong> {
        Count::<0, WEIGHT_MAX>::parse(text)
            .map(|count| Self(count.0 as u32))
            .map_err(|wrong| Wrong { why: format!("weights are whole numbers, 0 (draining) to {WEIGHT_MAX}"), ..wrong })
    }
    fn shape() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": WEIGHT_MAX })
    }
}

/// `off`, `stdout` or a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogTarget {
    #[default]
    Off,
    Stdout,
    File(PathBuf),
}

impl Scalar for LogTarget {
    const KIND: &'static str = "`off`, `stdout` or a path";
    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "off" => Ok(Self::Off),
            "stdout" | "-" => Ok(Self::Stdout),
            "" => Err(Wrong::because(Self::KIND)),
            "none" | "false" | "no" => Err(Wrong::because(Self::KIND).hint("did you mean `off`?")),
            "stderr" | "true" | "on" | "yes" => Err(Wrong::because(Self::KIND).hint("did you mean `stdout`?")),
            path => match hint::nearest(path, ["stdout"]) {
                Some(near) => Err(Wrong::because(Self::KIND).hint(format!("did you mean `{near}`?"))),
                None => Ok(Self::File(PathBuf::from(path))),
            },
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["off", "stdout", "./access.log"] })
    }
}

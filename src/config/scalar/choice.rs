//! Words out of a fixed list: each list once, for reading, writing, messages and the schema.

use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};
use super::super::hint;
use super::super::model::policy::{Coding, ProxyMode};
use super::super::model::rollout::{HookPoint, NoticeKind, Strategy, Then, Weekday};
use super::super::model::tls::{Alpn, ClientMode, TlsVersion};
use super::super::model::{AddressFamily, Protocol, ProxyHeader, RetryMethods, Verify};

/// A value that is written as one word.
pub trait Word: Copy {
    fn word(self) -> &'static str;
}

/// Declares how a type is written. What follows a `|` is read, too.
macro_rules! words {
    ($type:ty, $kind:literal { $($text:literal $(| $also:literal)* => $variant:ident,)+ }) => {
        impl Word for $type {
            fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )+
                }
            }
        }

        impl Scalar for $type {
            const KIND: &'static str = $kind;
            fn parse(text: &str) -> Result<Self, Wrong> {
                match text {
                    $( $text $(| $also)* => Ok(Self::$variant), )+
                    _ => Err(unknown(text, &[$($text),+])),
                }
            }
            fn shape() -> Json {
                json!({ "type": "string", "pattern": format!("^({})$", [$($text $(, $also)*),+].join("|")) })
            }
        }
    };
}

fn unknown(text: &str, words: &[&str]) -> Wrong {
    let wrong = Wrong::because(format!("it is one of {}", hint::list(words)));
    match hint::nearest(text, words.iter().copied()) {
        Some(near) => wrong.hint(format!("did you mean `{near}`?")),
        None => wrong,
    }
}

words!(Strategy, "a strategy" {
    "canary" => Canary,
    "blue_green" | "blue-green" => BlueGreen,
});

words!(ProxyMode, "`required` or `optional`" {
    "required" => Required,
    "optional" => Optional,
});

words!(Coding, "an algorithm" {
    "gzip" => Gzip,
    "br" | "brotli" => Brotli,
    "zstd" => Zstd,
});

words!(Then, "`rollback` or `pause`" {
    "rollback" => RollBack,
    "pause" => Pause,
});

words!(Protocol, "a protocol" {
    "h1" => H1,
    "h2c" => H2c,
    "h2" => H2,
});

words!(AddressFamily, "a family of addresses" {
    "both" => Both,
    "ipv4" => Ipv4,
    "ipv6" => Ipv6,
});

words!(ProxyHeader, "a version of the PROXY protocol" {
    "v1" => V1,
    "v2" => V2,
});

words!(Verify, "`full` or `off`" {
    "full" => Full,
    "off" => Off,
});

words!(RetryMethods, "`safe` or `idempotent`" {
    "safe" => Safe,
    "idempotent" => Idempotent,
});

words!(HookPoint, "a point of a rollout" {
    "before_stage" => BeforeStage,
    "after_stage" => AfterStage,
    "before_promote" => BeforePromote,
    "on_rollback" => OnRollback,
});

words!(NoticeKind, "a kind of notice" {
    "started" => Started,
    "advanced" => Advanced,
    "held" => Held,
    "paused" => Paused,
    "approval" => Approval,
    "rolled_back" => RolledBack,
    "promoted" => Promoted,
    "failed" => Failed,
});

words!(ClientMode, "`required`, `optional` or `off`" {
    "required" => Required,
    "optional" => Optional,
    "off" => Off,
});

words!(TlsVersion, "a version of TLS" {
    "1.2" => V12,
    "1.3" => V13,
});

words!(Alpn, "a protocol" {
    "h2" => H2,
    "http/1.1" => Http11,
});

words!(Weekday, "a day of the week" {
    "mon" | "monday" => Monday,
    "tue" | "tuesday" => Tuesday,
    "wed" | "wednesday" => Wednesday,
    "thu" | "thursday" => Thursday,
    "fri" | "friday" => Friday,
    "sat" | "saturday" => Saturday,
    "sun" | "sunday" => Sunday,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for kind in NoticeKind::ALL {
            assert_eq!(NoticeKind::parse(kind.word()), Ok(kind));
        }
        assert_eq!(Weekday::parse("sunday").unwrap().word(), "sun");
        assert_eq!(Strategy::parse("blue-green").unwrap().word(), "blue_green");
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        let wrong = Then::parse("rolback").unwrap_err();
        assert_eq!(wrong.why, "it is one of `rollback` and `pause`");
        assert_eq!(wrong.hint.as_deref(), Some("did you mean `rollback`?"));
    }
}

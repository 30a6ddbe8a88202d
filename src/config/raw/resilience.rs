//! Health, ejection, circuits and second chances as written.

use serde_json::{Value as Json, json};

use crate::config::decode::{OneOrMany, Scalar, Wrong};
use crate::config::hint;
use crate::config::keys::keys;
use crate::config::model::RetryMethods;
use crate::config::scalar::{AnyText, Count, Flag, Header, Number, Percent, StatusRange, Text, Time};

keys! {
    /// Active checks of every endpoint, each over a connection of its own: exactly one of `path`, `grpc` and `tcp`.
    Health {
        /// GET this path.
        path: Text = optional,
        /// Ask `grpc.health.v1.Health/Check` over HTTP/2 without TLS; `SERVING` passes.
        grpc: GrpcHealth = optional,
        /// Only connect.
        tcp: Flag = default("false"),
        /// Between two checks.
        every: Time<100> = default("2s"),
        /// Each wait between two checks is longer or shorter by up to this share, so that checks spread.
        jitter: Percent = default("10%"),
        /// A check that takes longer has failed.
        timeout: Time<10> = default("1s"),
        /// Passes in a row that make an endpoint healthy, also after a restart of its process.
        pass: Count<1, 100> = default("2"),
        /// Failures in a row that make it unhealthy.
        fail: Count<1, 100> = default("3"),
        /// The longest time that an endpoint which comes and goes must pass before it gets traffic again. It doubles
        /// with each time up to this, and a time is forgotten after as long. `0s` turns it off.
        damping: Time<0> = default("1m"),
        /// Statuses that pass: one, a range, or a list of them.
        status: OneOrMany<StatusRange> = default("200-299"),
        /// Host of the check. Without it, the endpoint's address.
        host: Text = optional,
        /// A header of the answer that differs for each process. Another value is a restart.
        instance_header: Header = optional,
    }
}

keys! {
    /// A check of `grpc.health.v1`.
    GrpcHealth {
        /// The service that is asked for. Without it, the endpoint as a whole.
        service: AnyText = default(""),
    }
}

keys! {
    /// Takes an endpoint out for a while when requests to it fail.
    Outlier {
        /// Failures in a row.
        consecutive_failures: Count<1, 10_000> = default("5"),
        /// Fails more than the other endpoints of its version.
        success_rate: SuccessRate = optional,
        /// Is slower than the other endpoints of its version.
        latency: SlowerThanPeers = optional,
        /// How often endpoints are compared. What came since the last time counts.
        every: Time<1_000> = default("10s"),
        /// How long the endpoint gets nothing. It doubles each time; a time is forgotten after `eject_for_max` without
        /// another.
        eject_for: Time<1> = default("30s"),
        /// The most that `eject_for` can grow to.
        eject_for_max: Time<1> = default("5m"),
        /// Share of a version's endpoints that may be out at once; one always may if there is another.
        max_ejected: Percent = default("50%"),
    }
}

keys! {
    /// An endpoint fails more than the other endpoints of its version, and not by chance.
    SuccessRate {
        /// By how many percentage points at least.
        below_peers_by: Percent = default("10%"),
        /// Requests to an endpoint without which it is not compared.
        min_requests: Count<10, 1_000_000> = default("100"),
    }
}

keys! {
    /// The median wait for an answer of an endpoint is longer than that of the other endpoints of its version.
    SlowerThanPeers {
        /// At least this many times.
        max_ratio: Number = default("3"),
        /// And at least by this.
        at_least: Time<0> = default("10ms"),
        /// Answers of an endpoint without which it is not compared.
        min_requests: Count<10, 1_000_000> = default("100"),
    }
}

keys! {
    /// Turns requests away at once before a version drowns in them.
    Circuit {
        /// Requests that one version may work on at once; more get 503 with `Retry-After`. Without it there is no bound.
        in_flight: Count<1, 1_000_000_000> = optional,
    }
}

keys! {
    /// Second chances of a request, always at another endpoint, before a byte of an answer has gone to the client.
    Retry {
        /// Further endpoints asked; 0 turns it off.
        attempts: Count<0, 10> = default("2"),
        /// What deserves a second chance, one or a list: `connect` (no connection; any method), `refused` (an HTTP/2
        /// endpoint said that it has not begun; any method), `reset` (the connection broke or what came was no
        /// answer), `timeout` (none within `per_try_timeout`), or a status from 500 on. Without it, `connect`,
        /// `refused` and `reset`.
        on: OneOrMany<RetryOn> = optional,
        /// The share of the live requests that may be asked again; what had no connection costs nothing. A few are
        /// always allowed.
        budget: Percent = default("20%"),
        /// Which requests may run twice: `safe` (GET, HEAD, OPTIONS, TRACE), or `idempotent` (PUT and DELETE, too).
        methods: RetryMethods = default("safe"),
        /// How long each attempt may stay without an answer. Only with `timeout` in `on`.
        per_try_timeout: Time<10> = optional,
        /// A second endpoint of the same version is asked the same while the first has not begun to answer, and whoever
        /// answers first is passed on. Only GET and HEAD without a body, over HTTP/1.1 and TCP; each costs one of the
        /// `budget`. Without it, never.
        hedge: Hedge = optional,
    }
}

keys! {
    /// A second endpoint is asked beside one that keeps silent.
    Hedge {
        /// How long the first may stay without a byte of an answer; the 95th percentile of its answers is a good start.
        after: Time<1> = required,
    }
}

/// One entry of `retry.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    Connect,
    Refused,
    Reset,
    Timeout,
    Status(u16),
}

const WORDS: [(&str, RetryOn); 4] = [
    ("connect", RetryOn::Connect),
    ("refused", RetryOn::Refused),
    ("reset", RetryOn::Reset),
    ("timeout", RetryOn::Timeout),
];

impl Scalar for RetryOn {
    const KIND: &'static str = "a reason to retry";
    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some((_, on)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*on);
        }
        match text.parse::<u16>() {
            Ok(status @ 500..=599) => return Ok(Self::Status(status)),
            Ok(_) => return Err(Wrong::because("only statuses from 500 to 599 are the endpoint's failure")),
            Err(_) => {}
        }
        let words = WORDS.map(|(word, _)| word);
        let wrong = Wrong::because(format!("it is one of {}, or a status such as `503`", hint::list(&words)));
        Err(match (text, hint::nearest(text, words)) {
            ("5xx", _) => wrong.hint("list the statuses: `502, 503, 504`"),
            (_, Some(near)) => wrong.hint(format!("did you mean `{near}`?")),
            (_, None) => wrong,
        })
    }
    fn shape() -> Json {
        json!({
            "anyOf": [
                { "type": "integer", "minimum": 500, "maximum": 599 },
                { "type": "string", "pattern": format!("^({}|5[0-9]{{2}})$", WORDS.map(|(word, _)| word).join("|")) },
            ]
        })
    }
}

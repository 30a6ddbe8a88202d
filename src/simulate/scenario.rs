//! What happens to a service while a rollout runs, in a few words.
//!
//! ```text
//! errors=5%                     the canary fails 5 % of its requests
//! errors=0.5%,rps=2000,after=25%  … from the stage of 25 % on, with 2 000 requests a second
//! outage,for=15m                both versions fail
//! ```

use std::time::Duration;

use crate::config::model::Rollout as Plan;
use crate::config::{list, nearest, parse_time};
use crate::rollout::share_of;

/// Requests a second of `low-traffic`.
const LOW_RPS: f64 = 1.0;
const OUTAGE_LASTS: Duration = Duration::from_secs(5 * 60);
const CRASHES_EVERY: Duration = Duration::from_secs(60);

/// Words that say what is wrong.
const KINDS: [&str; 7] = ["healthy", "errors", "latency", "crashes", "outage", "stable-outage", "low-traffic"];
/// Words that say how it is around it.
const SETTINGS: [&str; 7] = ["stable", "rps", "after", "from", "for", "p50", "p95"];

/// When what is wrong begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Begins {
    /// Well within the first stage: after half of its hold, and no later than a minute.
    Early,
    /// Since the rollout began.
    From(Duration),
    /// With the stage of this share, in hundredths of a percent.
    Stage(u16),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// As it was asked for.
    pub name: String,
    /// Failure rates while it is wrong; `None`: as always.
    pub canary_errors: Option<f64>,
    pub stable_errors: Option<f64>,
    /// The canary takes so many times as long.
    pub slowdown: f64,
    /// The canary restarts this often.
    pub restarts: Option<Duration>,
    /// No endpoint of stable can be used.
    pub stable_down: bool,
    pub begins: Begins,
    /// `None`: to the end.
    pub lasts: Option<Duration>,
    /// Instead of what is said for all scenarios.
    pub rps: Option<f64>,
    /// The rate of failures of whatever is well.
    pub base_errors: Option<f64>,
    /// Milliseconds.
    pub p50: Option<f64>,
    pub p95: Option<f64>,
}

impl Scenario {
    /// Scenarios that show what a plan does with most of what can happen.
    pub const DEFAULTS: [&str; 10] = [
        "healthy",
        "errors=0.5%",
        "errors=5%",
        "errors=50%",
        "latency=1.5x",
        "latency=3x",
        "crashes",
        "outage",
        "stable-outage",
        "low-traffic",
    ];

    pub fn parse(text: &str) -> Result<Scenario, String> {
        let mut scenario = Scenario {
            name: text.trim().to_string(),
            canary_errors: None,
            stable_errors: None,
            slowdown: 1.0,
            restarts: None,
            stable_down: false,
            begins: Begins::From(Duration::ZERO),
            lasts: None,
            rps: None,
            base_errors: None,
            p50: None,
            p95: None,
        };
        let words: Vec<(&str, Option<&str>)> = text.split(',').map(pair).collect();
        // What is wrong first: it brings defaults that the other words may change.
        let (kinds, settings): (Vec<_>, Vec<_>) = words.iter().partition(|(key, _)| KINDS.contains(key));
        for (key, _) in &settings {
            if !SETTINGS.contains(key) {
                return Err(unknown(key));
            }
        }
        if kinds.is_empty() {
            return Err(format!("it does not say what happens: {}", list(&KINDS)));
        }
        for (at, (key, value)) in kinds.iter().chain(&settings).enumerate() {
            if words.iter().filter(|(other, _)| other == key).count() > 1 {
                return Err(format!("`{key}` is given twice"));
            }
            if at < kinds.len() { scenario.wrong(key, *value)? } else { scenario.set(key, *value)? }
        }
        let (p50, p95) = (scenario.p50.unwrap_or(0.0), scenario.p95.unwrap_or(f64::INFINITY));
        if p95 < p50 { Err(format!("p95 ({p95} ms) is below p50 ({p50} ms)")) } else { Ok(scenario) }
    }

    /// Scenarios of a file: one a line, `NAME: SCENARIO` or `SCENARIO`; `#` begins a comment.
    pub fn parse_all(text: &str) -> Result<Vec<Scenario>, String> {
        let mut scenarios = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (name, words) = line.split_once(':').map_or((None, line), |(name, words)| (Some(name), words));
            let mut scenario = Scenario::parse(words.trim()).map_err(|why| format!("line {}: {why}", at + 1))?;
            if let Some(name) = name {
                scenario.name = name.trim().to_string();
            }
            scenarios.push(scenario);
        }
        if scenarios.is_empty() { Err("it holds no scenario".into()) } else { Ok(scenarios) }
    }

    fn wrong(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        match (key, value) {
            ("healthy", None) => {}
            ("low-traffic", None) => self.rps = Some(LOW_RPS),
            ("stable-outage", None) => {
                self.stable_down = true;
                self.bounded();
            }
            ("healthy" | "low-traffic" | "stable-outage", Some(_)) => return Err(format!("`{key}` takes no value")),
            ("errors", Some(value)) => self.canary_errors = Some(rate(key, value)?),
            ("latency", Some(value)) => self.slowdown = times(value)?,
            ("errors" | "latency", None) => {
                let example = if key == "errors" { "errors=5%" } else { "latency=1.5x" };
                return Err(format!("`{key}` needs a value, as in `{example}`"));
            }
            ("crashes", value) => self.restarts = Some(value.map_or(Ok(CRASHES_EVERY), |value| time(key, value))?),
            (_, value) => {
                let rate = value.map_or(Ok(1.0), |value| rate(key, value))?;
                (self.canary_errors, self.stable_errors) = (Some(rate), Some(rate));
                self.bounded();
            }
        }
        Ok(())
    }

    /// Outages end, unless it is said how long they last.
    fn bounded(&mut self) {
        self.begins = Begins::Early;
        self.lasts = Some(OUTAGE_LASTS);
    }

    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let Some(value) = value else { return Err(format!("`{key}` needs a value: `{key}=…`")) };
        match key {
            "stable" => self.base_errors = Some(rate(key, value)?),
            "rps" => self.rps = Some(rps(value)?),
            "after" => {
                let share = rate(key, value)? * 1e4;
                self.begins = Begins::Stage(share.round() as u16);
            }
            "from" => self.begins = Begins::From(time(key, value)?),
            "for" => self.lasts = Some(time(key, value)?).filter(|lasts| !lasts.is_zero()),
            "p50" => self.p50 = Some(millis(key, value)?),
            _ => self.p95 = Some(millis(key, value)?),
        }
        Ok(())
    }

    /// Whether it can happen in a rollout with this plan.
    pub fn fits(&self, plan: &Plan) -> Result<(), String> {
        let Begins::Stage(share) = self.begins else { return Ok(()) };
        if plan.stages.iter().any(|stage| share_of(stage) == share) {
            return Ok(());
        }
        let stages: Vec<String> = plan.stages.iter().map(|stage| percent(share_of(stage))).collect();
        Err(format!("`after={}` names no stage of the plan: its stages are {}", percent(share), list(&stages)))
    }
}

/// "25%" of 2 500 hundredths of a percent.
pub(super) fn percent(bp: u16) -> String {
    format!("{}%", f64::from(bp) / 100.0)
}

fn pair(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => (word.trim(), None),
    }
}

fn unknown(key: &str) -> String {
    let known = KINDS.iter().chain(&SETTINGS).copied();
    match nearest(key, known) {
        Some(near) => format!("`{key}` is not known; did you mean `{near}`?"),
        None => format!("`{key}` is not known: what happens is {}; with {}", list(&KINDS), list(&SETTINGS)),
    }
}

fn rate(key: &str, value: &str) -> Result<f64, String> {
    let number = value.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match number {
        Some(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        Some(_) | None => Err(format!("`{key}={value}`: write a percentage from `0%` to `100%`")),
    }
}

fn times(value: &str) -> Result<f64, String> {
    match value.strip_suffix('x').and_then(|number| number.parse::<f64>().ok()) {
        Some(number) if (0.01..=1_000.0).contains(&number) => Ok(number),
        Some(_) | None => Err(format!("`latency={value}`: write a factor from `0.01x` to `1000x`, such as `1.5x`")),
    }
}

fn time(key: &str, value: &str) -> Result<Duration, String> {
    parse_time(value).ok_or_else(|| format!("`{key}={value}`: write a duration, such as `30s`, `5m` or `1h`")).and_then(
        |time| match (key, time.is_zero()) {
            ("crashes", true) => Err(format!("`{key}={value}`: a restart takes some time")),
            (_, _) => Ok(time),
        },
    )
}

fn millis(key: &str, value: &str) -> Result<f64, String> {
    let ms = value.strip_suffix("ms").and_then(|number| number.parse::<f64>().ok());
    let ms = ms.or_else(|| parse_time(value).map(|time| time.as_secs_f64() * 1e3));
    match ms {
        Some(ms) if (0.001..=1e7).contains(&ms) => Ok(ms),
        Some(_) | None => Err(format!("`{key}={value}`: write a duration from `0.001ms` to `10000s`, such as `3.5ms`")),
    }
}

/// Requests a second; also of the option `--rps`.
pub fn rps(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(rps) if (0.001..=1e6).contains(&rps) => Ok(rps),
        Ok(_) | Err(_) => Err(format!("`{value}` is not a number of requests a second from 0.001 to 1000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Scenario {
        Scenario::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn a_scenario_says_what_is_wrong_and_how_it_is_around_it() {
        let scenario = parsed("errors=5%, stable=0.01%,rps=2000,after=25%");
        assert_eq!((scenario.canary_errors, scenario.base_errors), (Some(0.05), Some(0.0001)));
        assert_eq!((scenario.rps, scenario.begins), (Some(2_000.0), Begins::Stage(2_500)));
        let scenario = parsed("p95=9ms,latency=1.5x,p50=3.5ms,from=10m,for=1h");
        assert_eq!((scenario.slowdown, scenario.p50, scenario.p95), (1.5, Some(3.5), Some(9.0)));
        assert_eq!(scenario.begins, Begins::From(Duration::from_secs(600)));
        assert_eq!(scenario.lasts, Some(Duration::from_secs(3_600)));
        assert_eq!(parsed("low-traffic").rps, Some(LOW_RPS));
        assert_eq!(parsed("rps=3,low-traffic").rps, Some(3.0), "what is set wins over what comes with a word");
        assert_eq!(parsed("crashes=20s").restarts, Some(Duration::from_secs(20)));
        let both = parsed("stable-outage,errors=50%");
        assert!(both.stable_down && both.canary_errors == Some(0.5) && both.lasts == Some(OUTAGE_LASTS));
        assert_eq!(parsed("outage=20%,for=0s").lasts, None, "for ever");
        Scenario::DEFAULTS.iter().for_each(|name| assert_eq!(parsed(name).name, *name));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_way_out() {
        for (text, wanted) in [
            ("erors=5%", "did you mean `errors`?"),
            ("errors=5%,rsp=5", "did you mean `rps`?"),
            ("", "`` is not known: what happens is"),
            ("rps=5", "it does not say what happens"),
            ("errors", "as in `errors=5%`"),
            ("errors=5", "write a percentage"),
            ("errors=101%", "from `0%` to `100%`"),
            ("errors=NaN%", "write a percentage"),
            ("latency=2", "such as `1.5x`"),
            ("latency=0x", "from `0.01x`"),
            ("healthy=5%", "takes no value"),
            ("healthy,rps=0", "not a number of requests a second"),
            ("healthy,rps=inf", "not a number of requests a second"),
            ("healthy,from=5", "write a duration"),
            ("healthy,from", "needs a value"),
            ("crashes=0s", "takes some time"),
            ("errors=5%,errors=6%", "given twice"),
            ("healthy,p50=9ms,p95=3ms", "is below p50"),
        ] {
            let why = Scenario::parse(text).expect_err(text);
            assert!(why.contains(wanted), "{text}: {why}");
        }
    }

    #[test]
    fn a_file_names_its_scenarios() {
        let read = Scenario::parse_all("# of last week\nblack friday: errors=0.5%,rps=3000\n\nhealthy # as always\n");
        let names: Vec<String> = read.expect("it is well formed").into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["black friday", "healthy"]);
        assert_eq!(Scenario::parse_all("healthy\nsick").expect_err("unknown").split(':').next(), Some("line 2"));
        assert!(Scenario::parse_all("# nothing").is_err());
    }
}

//! What there is to tell, whoever is told. (pure)

use serde_json::Value;

use crate::config::model::NoticeKind;

/// What became of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    Started,
    Advanced,
    /// Nothing moves on for a while, though nothing is broken.
    Held,
    Paused,
    Resumed,
    /// A gate waits for somebody.
    Approval,
    RolledBack,
    Promoted,
    /// It paused because a webhook said no, or because stable is broken as well.
    Failed,
    /// A webhook was not told of a rollback.
    Untold,
    /// An operator or the file took the service over.
    Ended,
}

impl Happened {
    /// As the payloads say it.
    pub fn word(self) -> &'static str {
        match self {
            Happened::Started => "started",
            Happened::Advanced => "advanced",
            Happened::Held => "held",
            Happened::Paused => "paused",
            Happened::Resumed => "resumed",
            Happened::Approval => "approval",
            Happened::RolledBack => "rolled_back",
            Happened::Promoted => "promoted",
            Happened::Failed | Happened::Untold => "failed",
            Happened::Ended => "ended",
        }
    }

    /// Who of `on:` hears of it, by any of these. Who hears of a pause hears of its end, and who hears of a start hears
    /// of an end that has no word of its own.
    pub fn heard_as(self) -> &'static [NoticeKind] {
        match self {
            Happened::Started | Happened::Ended => &[NoticeKind::Started],
            Happened::Advanced => &[NoticeKind::Advanced],
            Happened::Held => &[NoticeKind::Held],
            Happened::Paused | Happened::Resumed => &[NoticeKind::Paused],
            Happened::Approval => &[NoticeKind::Approval],
            Happened::RolledBack => &[NoticeKind::RolledBack],
            Happened::Promoted => &[NoticeKind::Promoted],
            Happened::Failed => &[NoticeKind::Failed, NoticeKind::Paused],
            Happened::Untold => &[NoticeKind::Failed],
        }
    }
}

/// What an alarm system does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Somebody must look.
    Opens(Severity),
    /// Nobody has to look any more.
    Closes,
    /// Neither, such as what an operator did: somebody looks already.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Warning,
    Error,
    Critical,
}

impl Severity {
    /// A word that PagerDuty and the habits of Alertmanager share.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }
}

/// One thing that happened to one rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub happened: Happened,
    pub alarm: Alarm,
    pub service: String,
    /// The canary.
    pub version: String,
    pub stable: String,
    /// From 1; 0 before the first.
    pub stage: usize,
    pub stages: usize,
    /// One line for people.
    pub message: String,
    /// The numbers behind it, as in `status`.
    pub evidence: Value,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The canary of the rollout before, if an alarm of it may still be open.
    pub before: Option<String>,
}

impl Notice {
    /// What an alarm of this rollout is called where it is opened and closed: at most 142 characters.
    pub fn dedup(&self) -> String {
        dedup(&self.service, &self.version)
    }

    /// The names of all alarms that this notice closes.
    pub fn closed(&self) -> Vec<String> {
        match self.alarm {
            Alarm::Closes => self.closed_versions().iter().map(|version| dedup(&self.service, version)).collect(),
            Alarm::Opens(_) | Alarm::Quiet => Vec::new(),
        }
    }

    /// This canary and the one before.
    pub fn closed_versions(&self) -> Vec<&str> {
        let before = self.before.as_deref().filter(|before| *before != self.version);
        std::iter::once(&*self.version).chain(before).collect()
    }
}

fn dedup(service: &str, version: &str) -> String {
    format!("switchback/{service}/{version}")
}

/// At most `max` characters, cut where it says so.
pub fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}

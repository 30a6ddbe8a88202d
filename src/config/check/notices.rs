//! Gates, notifications and webhooks: who may say no, who is told, and that their names exist.

use std::collections::{BTreeMap, HashSet};

use super::super::decode::{Entry, Field, Map, OneOrMany, Scalar};
use super::super::found::{Found, Span};
use super::super::model::rollout::{Channel, Gate, HookPoint, NoticeKind, Notification, Webhook};
use super::super::model::{Name, rollout::Secret};
use super::super::raw::{self, Raw};
use super::super::scalar::{self, HttpUrl, Word};
use super::secret::secret;
use super::{Around, name, unknown_name};

/// The names that rollouts may use.
pub struct Known<'r> {
    gates: Vec<&'r str>,
    notifications: Vec<&'r str>,
    /// The sections could be read; without that nothing can be said about their names.
    gates_complete: bool,
    notifications_complete: bool,
}

impl<'r> Known<'r> {
    pub fn of(raw: &'r Raw) -> Self {
        Self {
            gates: keys(&raw.gates),
            notifications: keys(&raw.notifications),
            gates_complete: raw.gates.get().is_some(),
            notifications_complete: raw.notifications.get().is_some(),
        }
    }

    /// Says so if there is no such gate.
    pub fn gate(&self, gate: &str, span: Span, found: &mut Found) {
        if !self.gates_complete || self.gates.contains(&gate) {
            return;
        }
        if self.gates.is_empty() {
            found
                .error(span, format!("there is no gate `{gate}`"))
                .why("there are no `gates`")
                .hint(format!("add `gates: {{ {gate}: {{ approvers: [ada, grace] }} }}` at the top level"));
        } else {
            unknown_name("gate", gate, &self.gates, "the gates are", span, found);
        }
    }

    /// Says so if there is no such notification.
    pub fn notification(&self, notification: &str, span: Span, found: &mut Found) {
        if !self.notifications_complete || self.notifications.contains(&notification) {
            return;
        }
        if self.notifications.is_empty() {
            found
                .error(span, format!("there is no notification `{notification}`"))
                .why("there are no `notifications`")
                .hint(format!("add `notifications: {{ {notification}: … }}` at the top level"));
        } else {
            unknown_name("notification", notification, &self.notifications, "the notifications are", span, found);
        }
    }
}

fn keys<V>(field: &Field<Map<scalar::Name, V>>) -> Vec<&str> {
    field.get().into_iter().flat_map(|map| map.iter()).map(|entry| entry.key.value.as_str()).collect()
}

pub fn gates(raw: &Raw, found: &mut Found) -> BTreeMap<Name, Gate> {
    let mut gates = BTreeMap::new();
    for entry in raw.gates.get().into_iter().flat_map(|map| map.iter()) {
        let Some(gate) = &entry.value else { continue };
        let mut approvers: Vec<String> = Vec::new();
        for (approver, span) in gate.approvers.get().into_iter().flat_map(|list| list.good()) {
            if approver.0.trim() != approver.0 || approver.0.chars().any(char::is_control) {
                found
                    .error(span, format!("nobody can be called `{}`", approver.0.escape_debug()))
                    .why("there are blanks");
            }
            if approvers.contains(&approver.0) {
                found
                    .error(span, format!("`{}` approves for `{}` twice", approver.0, entry.key.value))
                    .hint("keep one");
            } else {
                approvers.push(approver.0.clone());
            }
        }
        gates.insert(name(&entry.key.value), Gate { approvers });
    }
    gates
}

pub fn notifications(raw: &Raw, around: &Around<'_>, found: &mut Found) -> BTreeMap<Name, Notification> {
    let entries = raw.notifications.get().into_iter().flat_map(|map| map.iter());
    entries.filter_map(|entry| Some((name(&entry.key.value), notification(entry, around, found)?))).collect()
}

fn notification(entry: &Entry<raw::Notification>, around: &Around<'_>, found: &mut Found) -> Option<Notification> {
    let raw = entry.value.as_ref()?;
    let on = once(&raw.on, "a kind of notice", found);
    let on = if raw.on.is_missing() { NoticeKind::ALL.to_vec() } else { on };
    let given: Vec<(&str, Span)> = [
        ("slack", raw.slack.key(), raw.slack.is_missing()),
        ("pagerduty", raw.pagerduty.key(), raw.pagerduty.is_missing()),
        ("alertmanager", raw.alertmanager.key(), raw.alertmanager.is_missing()),
        ("webhook", raw.webhook.key(), raw.webhook.is_missing()),
    ]
    .into_iter()
    .filter(|(_, _, missing)| !missing)
    .map(|(key, span, _)| (key, span.unwrap_or(entry.key.span)))
    .collect();
    match given.as_slice() {
        [] => {
            found
                .error(entry.key.span, format!("notification `{}` tells nobody", entry.key.value))
                .hint("add `slack`, `pagerduty`, `alertmanager` or `webhook`");
        }
        [_] => {}
        [(first, _), (second, span), ..] => {
            found
                .error(*span, format!("`{first}` and `{second}` cannot be used together"))
                .hint("make two notifications, each with its own name");
        }
    }
    Some(Notification { to: channel(raw, around, found)?, on })
}

fn channel(raw: &raw::Notification, around: &Around<'_>, found: &mut Found) -> Option<Channel> {
    if let Some(slack) = raw.slack.get() {
        let url = secret(&slack.url_file, "the address of an incoming webhook", around, found)?;
        if HttpUrl::parse(&url.value).is_err() {
            // The content is a secret, wrong or not.
            let span = slack.url_file.written().map(|it| it.1).unwrap_or_default();
            let file = slack.url_file.get().map_or("", |file| file.0.as_str());
            found
                .error(span, format!("`{file}` does not hold the address of an incoming webhook"))
                .why("it must begin with `https://`");
        }
        return Some(Channel::Slack { url });
    }
    if let Some(pagerduty) = raw.pagerduty.get() {
        return Some(Channel::PagerDuty {
            routing_key: secret(&pagerduty.routing_key_file, "a routing key", around, found)?,
            url: pagerduty.url.value().0,
            source: pagerduty.source.get().map(|source| source.0.clone()),
        });
    }
    if let Some(alertmanager) = raw.alertmanager.get() {
        return Some(Channel::Alertmanager { url: alertmanager.url.value().0 });
    }
    let webhook: &raw::NoticeHook = raw.webhook.get()?;
    let secret = signing_key(&webhook.secret_file, around, found);
    Some(Channel::Webhook { url: webhook.url.value().0, secret })
}

pub fn webhook(raw: &raw::Webhook, around: &Around<'_>, found: &mut Found) -> Webhook {
    let on: Vec<HookPoint> = once(&raw.on, "a point of a rollout", found);
    Webhook {
        url: raw.url.value().0,
        on,
        secret: signing_key(&raw.secret_file, around, found),
        timeout: raw.timeout.value().0,
        attempts: raw.attempts.value().0 as u32,
    }
}

fn signing_key(field: &Field<scalar::Text>, around: &Around<'_>, found: &mut Found) -> Option<Secret> {
    secret(field, "a key", around, found)
}

/// Words of an `on` list: at least one if the list is there, each once.
fn once<T: Word + PartialEq>(field: &Field<OneOrMany<T>>, what: &str, found: &mut Found) -> Vec<T> {
    let mut words: Vec<T> = Vec::new();
    let Some((list, span)) = field.written() else { return words };
    if list.0.0.is_empty() {
        found.error(span, "`on` is empty").why("nothing would ever be sent").hint(format!("name {what}"));
    }
    for (word, span) in list.0.good() {
        if words.contains(word) {
            found.error(span, format!("`{}` is given twice", word.word())).hint("keep one");
        } else {
            words.push(*word);
        }
    }
    words
}

/// Gates that no stage asks and notifications that no rollout sends: probably forgotten, so warnings.
pub fn unused(raw: &Raw, found: &mut Found) {
    let services = || raw.services.get().into_iter().flat_map(|map| map.iter());
    let rollouts = || services().filter_map(|entry| entry.value.as_ref()?.rollout.get());
    let stages = rollouts().filter_map(|it| it.stages.get()).flat_map(|list| list.good());
    let asked: HashSet<&str> = stages
        .filter_map(|(stage, _)| match stage {
            raw::Stage::Full(keys) => keys.approve.get().map(|gate| gate.0.as_str()),
            raw::Stage::Share(_) => None,
        })
        .collect();
    for entry in raw.gates.get().into_iter().flat_map(|map| map.iter()) {
        if !asked.contains(entry.key.value.as_str()) {
            found
                .warning(entry.key.span, format!("gate `{}` is never asked", entry.key.value))
                .why("no stage of a rollout names it")
                .hint(format!("add `approve: {}` to a stage, or remove the gate", entry.key.value));
        }
    }
    // A rollout without a readable list tells all.
    if rollouts().any(|rollout| rollout.notify.get().is_none()) {
        return;
    }
    let told: HashSet<&str> = rollouts()
        .filter_map(|rollout| rollout.notify.get())
        .flat_map(|many| many.0.good())
        .map(|(name, _)| name.0.as_str())
        .collect();
    for entry in raw.notifications.get().into_iter().flat_map(|map| map.iter()) {
        if !told.contains(entry.key.value.as_str()) {
            found
                .warning(entry.key.span, format!("notification `{}` is never sent", entry.key.value))
                .why("no service has a `rollout` that names it");
        }
    }
}

//! Everything that goes out, for control: notices are told, hooks are asked.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::delivery::{Delivery, Patience};
use super::notice::{Alarm, Notice};
use super::outbox::{Letter, Outbox};
use super::payload::{self, HookCall, Post};
use crate::config::model::{Channel, HookPoint, Name, NoticeKind, Notification, Webhook};
use crate::telemetry::{Events, names};

/// For notices: more than a minute, over a restart of whoever is told.
const PATIENCE: Patience = Patience { timeout: Duration::from_secs(10), attempts: 8 };
/// What webhooks that are told of a rollback are called in the metric.
const WEBHOOKS: &str = "webhooks";

#[derive(Debug, Clone)]
pub struct Desk {
    runtime: tokio::runtime::Handle,
    client: Client,
    outbox: Outbox,
    asks: TaskTracker,
    stop: CancellationToken,
}

/// Ends the question when it is dropped; the answer is not wanted any more.
#[derive(Debug)]
pub struct Asking {
    _end: tokio_util::sync::DropGuard,
}

impl Desk {
    pub fn new(runtime: tokio::runtime::Handle, events: Events) -> Desk {
        let client = Client::default();
        let outbox = Outbox::new(runtime.clone(), client.clone(), events);
        Desk { runtime, client, outbox, asks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Tells whoever of `channels` is named (`None`: all of them) and wants to hear of it.
    pub fn tell(&self, channels: &BTreeMap<Name, Notification>, named: Option<&[Name]>, notice: &Notice) {
        let named = |name: &Name| named.is_none_or(|named| named.contains(name));
        for (name, notification) in
            channels.iter().filter(|(name, notification)| named(name) && hears(notification, notice))
        {
            for post in payload::posts(&notification.to, notice) {
                let letter = Letter {
                    delivery: Delivery::new(post),
                    patience: PATIENCE,
                    channel: name.to_string(),
                    on_failure: None,
                };
                self.outbox.post(name, letter);
            }
        }
    }

    /// Tells a webhook, which is not waited for. `on_failure` is called if it could not be told.
    pub fn inform(&self, webhook: &Webhook, call: &HookCall, on_failure: impl FnOnce(&str) + Send + 'static) {
        let letter = Letter {
            delivery: Delivery::new(post(webhook, call)),
            patience: patience(webhook),
            channel: WEBHOOKS.into(),
            on_failure: Some(Box::new(on_failure)),
        };
        // No name of a notification has a blank.
        self.outbox.post(&format!("{WEBHOOKS} {}", webhook.url), letter);
    }

    /// Asks webhooks, all at once. `answered` is called with `Ok` if all said yes, and else with which did not, and why.
    pub fn ask(
        &self,
        webhooks: &[Webhook],
        call: &HookCall,
        answered: impl FnOnce(Result<(), String>) + Send + 'static,
    ) -> Asking {
        let end = self.stop.child_token();
        let ended = end.clone();
        let client = self.client.clone();
        let questions: Vec<_> =
            webhooks.iter().map(|webhook| (Delivery::new(post(webhook, call)), patience(webhook))).collect();
        let (service, point) = (call.service.clone(), call.point.as_str());
        let question = async move {
            let mut asked = tokio::task::JoinSet::new();
            for (delivery, patience) in questions {
                let client = client.clone();
                asked.spawn(async move {
                    let answer = delivery.deliver(&client, patience).await;
                    answer.map_err(|wrong| format!("{}: {wrong}", delivery.shown))
                });
            }
            // The first refusal is enough; dropping the set ends the other questions.
            while let Some(answer) = asked.join_next().await {
                answer.unwrap_or_else(|error| Err(format!("it could not be asked: {error}")))?;
            }
            Ok(())
        };
        let task = async move {
            let answer = tokio::select! { answer = question => answer, () = ended.cancelled() => return };
            let result = if answer.is_ok() { "granted" } else { "refused" };
            metrics::counter!(names::WEBHOOKS_TOTAL, "service" => service, "point" => point, "result" => result)
                .increment(1);
            answered(answer);
        };
        self.asks.spawn_on(task, &self.runtime);
        Asking { _end: end.drop_guard() }
    }

    /// Asks nobody any more, and sends what waits, for as long as this at most.
    pub async fn close(&self, patience: Duration) {
        self.stop.cancel();
        self.asks.close();
        self.asks.wait().await;
        self.outbox.close(patience).await;
    }
}

/// An alarm that is closed is told to alarm systems that might have heard of its beginning.
fn hears(notification: &Notification, notice: &Notice) -> bool {
    let has_alarms = match &notification.to {
        Channel::PagerDuty { .. } | Channel::Alertmanager { .. } => true,
        Channel::Slack { .. } | Channel::Webhook { .. } => false,
    };
    let opens = |kind: &NoticeKind| matches!(kind, NoticeKind::Paused | NoticeKind::RolledBack | NoticeKind::Failed);
    match notice.alarm {
        Alarm::Closes if has_alarms => notification.on.iter().any(opens),
        Alarm::Opens(_) | Alarm::Closes | Alarm::Quiet => {
            notice.happened.heard_as().iter().any(|kind| notification.on.contains(kind))
        }
    }
}

fn post(webhook: &Webhook, call: &HookCall) -> Post {
    Post {
        url: webhook.url.clone(),
        shown: payload::shown(&webhook.url),
        body: payload::hook(call),
        secret: webhook.secret.clone(),
    }
}

fn patience(webhook: &Webhook) -> Patience {
    Patience { timeout: webhook.timeout, attempts: webhook.attempts }
}

/// Those of a rollout's webhooks that are asked or told at this point.
pub fn at(webhooks: &[Webhook], point: HookPoint) -> Vec<Webhook> {
    webhooks.iter().filter(|webhook| webhook.on.contains(&point)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::notice::{Happened, Severity};
    use super::super::testing::{Server, reply};
    use super::*;
    use crate::config::model::Secret;

    fn desk() -> Desk {
        Desk::new(tokio::runtime::Handle::current(), Events::default())
    }

    fn secret(value: &str) -> Secret {
        Secret { value: value.into(), file: "/run/secret".into() }
    }

    fn notice(happened: Happened, alarm: Alarm) -> Notice {
        Notice {
            happened,
            alarm,
            service: "shop".into(),
            version: "v2".into(),
            stable: "v1".into(),
            stage: 1,
            stages: 3,
            message: "it happened".into(),
            evidence: Value::Null,
            at_unix_ms: 1,
            before: None,
        }
    }

    fn hook(url: String, on: HookPoint, attempts: u32) -> Webhook {
        Webhook { url, on: vec![on], secret: Some(secret("key")), timeout: Duration::from_millis(500), attempts }
    }

    fn call(point: HookPoint) -> HookCall {
        HookCall {
            point,
            service: "shop".into(),
            version: "v2".into(),
            stable: "v1".into(),
            stage: 1,
            stages: 3,
            share: 0.0,
            message: "stage 1 is to begin".into(),
            evidence: Value::Null,
            at_unix_ms: 1,
        }
    }

    async fn answer(webhooks: &[Webhook]) -> Result<(), String> {
        let (sender, answer) = tokio::sync::oneshot::channel();
        let desk = desk();
        let _asking = desk.ask(webhooks, &call(HookPoint::BeforeStage), |answer| drop(sender.send(answer)));
        tokio::time::timeout(Duration::from_secs(20), answer).await.expect("in time").expect("an answer")
    }

    #[tokio::test]
    async fn each_channel_hears_what_it_wants_in_its_own_words() {
        let server = Server::start(vec![reply(202, "")]).await;
        let channel = |to, on: &[NoticeKind]| Notification { to, on: on.to_vec() };
        let all = NoticeKind::ALL;
        let channels = BTreeMap::from([
            ("chat".into(), channel(Channel::Slack { url: secret(&server.url("/services/T/B/X")) }, &all)),
            (
                "pager".into(),
                channel(
                    Channel::PagerDuty { routing_key: secret("R"), url: server.url("/v2/enqueue"), source: None },
                    &[NoticeKind::RolledBack],
                ),
            ),
            ("am".into(), channel(Channel::Alertmanager { url: server.url("") }, &[NoticeKind::Paused])),
            ("log".into(), channel(Channel::Webhook { url: server.url("/log"), secret: None }, &[NoticeKind::Started])),
        ]);
        let desk = desk();
        let opens = Alarm::Opens(Severity::Error);
        // Chat and pager; chat, pager and Alertmanager, which heard of no rollback but may know a pause; chat
        // and log; the log alone.
        desk.tell(&channels, None, &notice(Happened::RolledBack, opens));
        desk.tell(&channels, None, &notice(Happened::Promoted, Alarm::Closes));
        desk.tell(&channels, None, &notice(Happened::Ended, Alarm::Quiet));
        desk.tell(&channels, Some(&["log".into()]), &notice(Happened::Started, Alarm::Quiet));
        desk.close(Duration::from_secs(20)).await;
        let lines = |path: &str| server.received().iter().filter(|heard| heard.line.contains(path)).count();
        let counts = ["/services/T/B/X", "/v2/enqueue", "/api/v2/alerts", "/log"].map(lines);
        assert_eq!(counts, [3, 2, 1, 2]);
        let events: Vec<Value> = server
            .received()
            .iter()
            .filter(|heard| heard.line.contains("enqueue"))
            .map(|heard| heard.json()["event_action"].clone())
            .collect();
        assert_eq!(events, ["trigger", "resolve"]);
    }

    #[tokio::test]
    async fn hooks_grant_if_all_say_yes() {
        let server = Server::start(vec![reply(200, "fine"), reply(204, "")]).await;
        let hooks =
            [hook(server.url("/a"), HookPoint::BeforeStage, 1), hook(server.url("/b"), HookPoint::BeforeStage, 1)];
        assert_eq!(answer(&hooks).await, Ok(()));
        let heard = server.received();
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[0].json()["point"], "before_stage");
        assert!(heard[0].field("x-switchback-signature").is_some());
    }

    #[tokio::test]
    async fn one_refusal_is_enough_and_names_the_hook_without_its_query() {
        let well = Server::start(vec![reply(200, "")]).await;
        let yes = hook(well.url("/yes"), HookPoint::BeforeStage, 1);
        for (replies, attempts, want) in [
            (
                vec![reply(403, "frozen by release management")],
                3,
                "it answered 403 Forbidden: frozen by release management",
            ),
            (vec![None], 2, "no answer within 500ms (tried 2 times)"),
            (vec![Some("\u{0}\u{1}\u{2} what?\r\n\r\n".into())], 1, "invalid HTTP version parsed"),
        ] {
            let server = Server::start(replies).await;
            let no = hook(server.url("/no?token=abc"), HookPoint::BeforeStage, attempts);
            let refused = answer(&[yes.clone(), no]).await.unwrap_err();
            assert!(refused.starts_with(&format!("{}: ", server.url("/no"))) && refused.contains(want), "{refused}");
        }
    }

    #[tokio::test]
    async fn nobody_is_answered_who_does_not_ask_any_more() {
        let server = Server::start(vec![None]).await;
        let desk = desk();
        let (sender, answer) = tokio::sync::oneshot::channel();
        let hooks = [hook(server.url("/"), HookPoint::AfterStage, 1)];
        let asking = desk.ask(&hooks, &call(HookPoint::AfterStage), |answer| drop(sender.send(answer)));
        server.until(1).await;
        drop(asking);
        assert!(answer.await.is_err(), "the question is gone, and its answer with it");
        desk.close(Duration::from_secs(1)).await;
    }

    #[tokio::test]
    async fn a_hook_that_is_only_told_is_tried_as_often_as_it_wants() {
        let server = Server::start(vec![reply(500, ""), reply(200, "")]).await;
        let desk = desk();
        let told = hook(server.url("/told"), HookPoint::OnRollback, 2);
        desk.inform(&told, &call(HookPoint::OnRollback), |why| panic!("{why}"));
        desk.close(Duration::from_secs(20)).await;
        let heard = server.received();
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[0].field("x-switchback-delivery"), heard[1].field("x-switchback-delivery"));
    }
}

//! Who may approve and who is told: `gates:` and `notifications:` as written.

use crate::config::decode::{List, OneOrMany};
use crate::config::keys::keys;
use crate::config::model::rollout::NoticeKind;
use crate::config::scalar::{HttpUrl, Text};

keys! {
    /// Who may say yes to a stage that names the gate.
    Gate {
        /// Their names. None: anybody with the admin token.
        approvers: List<Text> = optional,
    }
}

keys! {
    /// Somebody who is told what rollouts do, by exactly one of `slack`, `pagerduty`, `alertmanager` and `webhook`.
    Notification {
        /// An incoming webhook of Slack.
        slack: Slack = optional,
        /// Events API v2 of PagerDuty: an incident is opened, and resolved when the rollout goes on or ends well.
        pagerduty: PagerDuty = optional,
        /// API v2 of Alertmanager.
        alertmanager: Alertmanager = optional,
        /// Any service that takes JSON.
        webhook: NoticeHook = optional,
        /// One or a list of `started`, `advanced`, `held`, `paused`, `approval`, `rolled_back`, `promoted`, `failed` (a
        /// webhook, or stable is broken as well). Without it, all.
        on: OneOrMany<NoticeKind> = optional,
    }
}

keys! {
    /// An incoming webhook of Slack.
    Slack {
        /// A file with its address, which is a secret; relative to this file.
        url_file: Text = required,
    }
}

keys! {
    /// Events API v2 of PagerDuty.
    PagerDuty {
        /// A file with the routing key (integration key) of the service, relative to this file.
        routing_key_file: Text = required,
        /// Where events are sent.
        url: HttpUrl = default("https://events.pagerduty.com/v2/enqueue"),
        /// Shown as the source of the event. Without it, the name of the service.
        source: Text = optional,
    }
}

keys! {
    /// API v2 of Alertmanager.
    Alertmanager {
        /// Its address without the path of the API: `http://alertmanager:9093`.
        url: HttpUrl = required,
    }
}

keys! {
    /// Any service that takes JSON.
    NoticeHook {
        /// `http://…` or `https://…`.
        url: HttpUrl = required,
        /// A file with the key of the HMAC signature, relative to this file. Without it, requests are not signed.
        secret_file: Text = optional,
    }
}

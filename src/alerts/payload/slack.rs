//! Slack's incoming webhooks: `text` (shown in notifications and by old clients) and `blocks`.
//!
//! Only `&`, `<` and `>` are control characters of its markup; each is escaped, so that no reason that somebody
//! typed can address a channel. A section holds 3 000 characters.

use serde_json::{Value, json};

use crate::alerts::notice::{Alarm, Happened, Notice, Severity, shortened};

/// Characters of our message before they are escaped, which can make five of one.
const MESSAGE_MAX: usize = 500;

pub fn message(notice: &Notice) -> Value {
    let service = escaped(&notice.service);
    let message = escaped(&shortened(&notice.message, MESSAGE_MAX));
    let versions = format!("{} → {}", escaped(&notice.stable), escaped(&notice.version));
    let at = notice.at_unix_ms / 1_000;
    let date = crate::config::rfc3339(notice.at_unix_ms);
    json!({
        "text": format!("{} {service}: {message}", sign(notice)),
        "blocks": [
            {
                "type": "section",
                "text": { "type": "mrkdwn", "text": format!("{} *{service}*: {message}", sign(notice)), "verbatim": true },
            },
            {
                "type": "context",
                "elements": [{
                    "type": "mrkdwn",
                    "text": format!(
                        "{} · {versions} · stage {} of {} · <!date^{at}^{{date_short_pretty}} {{time_secs}}|{date}>",
                        notice.happened.word(), notice.stage, notice.stages,
                    ),
                }],
            },
        ],
    })
}

fn sign(notice: &Notice) -> &'static str {
    match (notice.alarm, notice.happened) {
        (Alarm::Opens(Severity::Warning), _) => ":warning:",
        (Alarm::Opens(Severity::Error | Severity::Critical), _) => ":rotating_light:",
        (_, Happened::Promoted) => ":white_check_mark:",
        (_, Happened::RolledBack) => ":leftwards_arrow_with_hook:",
        (_, Happened::Approval | Happened::Held | Happened::Paused) => ":raised_hand:",
        (
            _,
            Happened::Started
            | Happened::Advanced
            | Happened::Resumed
            | Happened::Failed
            | Happened::Untold
            | Happened::Ended,
        ) => ":arrow_forward:",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::testing::notice;
    use super::*;

    #[test]
    fn a_message_has_text_and_blocks_and_addresses_nobody() {
        let body = message(&notice());
        let text = ":rotating_light: shop: rollback v2: 7 of 9 &lt;requests&gt; &amp; more failed";
        assert_eq!(body["text"], text);
        assert_eq!(body["blocks"][0]["type"], "section");
        assert_eq!(body["blocks"][0]["text"]["type"], "mrkdwn");
        assert_eq!(body["blocks"][0]["text"]["text"], text.replace("shop", "*shop*"));
        let context = body["blocks"][1]["elements"][0]["text"].as_str().unwrap();
        assert_eq!(
            context,
            "rolled_back · v1 → v2 · stage 2 of 5 · <!date^1795600800^{date_short_pretty} {time_secs}|2026-11-25T10:00:00.000Z>"
        );
    }

    #[test]
    fn a_long_reason_fits_a_section_even_if_all_of_it_is_escaped() {
        let body = message(&Notice { message: "<!channel>".repeat(1_000), ..notice() });
        let text = body["blocks"][0]["text"]["text"].as_str().unwrap();
        assert!(text.chars().count() <= 3_000 && text.ends_with('…') && !text.contains('<'), "{text}");
    }
}

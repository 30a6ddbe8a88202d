//! The configuration as it runs: the file's keys, and for each service what was changed on top, by whom.

use super::history::splits_of;
use super::overlay::{intent_text, weights_text};
use super::shared::Shared;
use crate::config::render;

pub(crate) fn effective(shared: &Shared) -> String {
    let live = shared.live.load();
    let view = shared.view();
    let stamp = &live.generation.stamp;
    let mut text = format!("# generation {} by {}: {}\n", stamp.number, stamp.author, stamp.cause);
    if let Some(whole) = &view.whole {
        text += &format!("# not what {} says: {} by {}\n", view.config.source, whole.cause, whole.author);
    }
    let splits = splits_of(&live.generation);
    for service in &live.generation.table.services {
        let intent = intent_text(&service.service.intent);
        let runs = splits.get(&*service.name).map(weights_text).unwrap_or_default();
        text += &match view.overlay.get(&*service.name) {
            None => format!("# service {}: {intent} (owner: file)\n", service.name),
            Some(entry) => format!(
                "# service {}: runs {runs} (owner: {}, since {}: {}); the file says {intent}\n",
                service.name, entry.author, entry.since, entry.cause
            ),
        };
    }
    text + &render::to_yaml(&live.generation.table.config)
}

//! `upgrade`: how a new process takes over.

use std::time::Duration;

use crate::config::found::Found;
use crate::config::model;
use crate::config::raw::Raw;
use crate::config::scalar;

pub fn upgrade(raw: &Raw, found: &mut Found) -> model::Upgrade {
    let Some(it) = raw.upgrade.get() else {
        return model::Upgrade { ready_timeout: Duration::ZERO, linger: Duration::ZERO, drain: Duration::ZERO };
    };
    let upgrade = model::Upgrade {
        ready_timeout: it.ready_timeout.value().0,
        linger: it.linger.value().0,
        drain: it.drain.value().0,
    };
    let complete = it.linger.get().is_some() && it.drain.get().is_some();
    if complete && upgrade.linger > upgrade.drain {
        let span = it.drain.written().map(|written| written.1).or(it.linger.written().map(|written| written.1));
        found
            .error(span.unwrap_or_default(), "`upgrade.drain` is shorter than `linger`")
            .why(format!("{} is less than {}", scalar::write_time(upgrade.drain), scalar::write_time(upgrade.linger)))
            .hint("raise `drain`, or lower `linger`");
    }
    upgrade
}

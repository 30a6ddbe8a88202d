//! Second chances: what can never happen is not accepted.

use super::super::found::Found;
use super::super::model::{self, RetryMethods};
use super::super::raw::{self, RetryOn};

pub fn retry(raw: &raw::Service, found: &mut Found) -> model::Retry {
    let Some(it) = raw.retry.get() else { return model::Retry::default() };
    let attempts = it.attempts.value().0 as u32;
    let on = match it.on.written() {
        None => model::Retry::default().on,
        Some((list, span)) => {
            if list.0.0.is_empty() {
                found.error(span, "`on` is empty").hint("list what deserves a second chance, or write `attempts: 0`");
            }
            let mut on =
                model::RetryOn { connect: false, refused: false, reset: false, timeout: false, statuses: vec![] };
            for (one, span) in list.0.good() {
                let is_new = match one {
                    RetryOn::Connect => !std::mem::replace(&mut on.connect, true),
                    RetryOn::Refused => !std::mem::replace(&mut on.refused, true),
                    RetryOn::Reset => !std::mem::replace(&mut on.reset, true),
                    RetryOn::Timeout => !std::mem::replace(&mut on.timeout, true),
                    RetryOn::Status(status) => {
                        !on.statuses.contains(status) && {
                            on.statuses.push(*status);
                            true
                        }
                    }
                };
                if !is_new {
                    found.warning(span, "this is listed twice");
                }
            }
            on.statuses.sort_unstable();
            on
        }
    };
    let per_try_timeout = it.per_try_timeout.get().map(|time| time.0);
    match (on.timeout, it.per_try_timeout.written()) {
        (true, None) if it.per_try_timeout.is_missing() => {
            let at = it.on.written().map(|it| it.1).unwrap_or_default();
            found
                .error(at, "`timeout` needs `per_try_timeout`")
                .why("without it an attempt may take all of `timeouts.request`, and nothing is left for another")
                .hint("add `per_try_timeout: 2s`, or remove `timeout`");
        }
        (false, Some((_, span))) => {
            let finding = found.error(span, "`per_try_timeout` would do nothing");
            finding.why("`on` does not list `timeout`").hint("add `timeout` to `on`, or remove it");
        }
        (true, Some((time, span))) => {
            if let Some(request) = raw.timeouts.get().and_then(|it| it.request.get())
                && time.0 >= request.0
            {
                found
                    .error(span, "`per_try_timeout` can never be reached")
                    .why("`timeouts.request` bounds all attempts together and is not longer");
            }
        }
        (true | false, None) => {}
    }
    let budget_bp = it.budget.value().0;
    let spends = on.reset || on.timeout || !on.statuses.is_empty();
    if let Some((_, span)) = it.budget.written().filter(|_| budget_bp == 0 && spends && attempts > 0) {
        found
            .error(span, "a budget of 0% allows none of the retries in `on`")
            .hint("write `on: [connect, refused]`, which cost nothing, or `attempts: 0`");
    }
    if attempts == 0 {
        for key in [it.on.key(), it.budget.key(), it.methods.key(), it.per_try_timeout.key()].into_iter().flatten() {
            found.warning(key, "this has no effect: `attempts` is 0");
        }
    }
    let methods = it.methods.get().copied().unwrap_or(RetryMethods::Safe);
    model::Retry { attempts, on, methods, budget_bp, per_try_timeout }
}

//! Ejection and second chances: what can never happen is not accepted.

use std::time::Duration;

use super::super::found::Found;
use super::super::model::{self, EndpointAddress, Protocol, RetryMethods};
use super::super::raw::{self, RetryOn};

/// Medians are known to within a half: less than twice may be nothing at all.
const RATIO_LEAST: f64 = 2.0;
const RATIO_MOST: f64 = 1_000.0;

pub fn outlier(it: &raw::Outlier, found: &mut Found) -> model::Outlier {
    let (eject_for, eject_for_max) = (it.eject_for.value().0, it.eject_for_max.value().0);
    if eject_for > eject_for_max {
        let span = it.eject_for_max.written().or(it.eject_for.written()).map(|it| it.1).unwrap_or_default();
        found.error(span, "`eject_for` is longer than `eject_for_max`").hint("raise `eject_for_max`");
    }
    let success_rate = it.success_rate.get().map(|rule| {
        let below_peers_bp = rule.below_peers_by.value().0;
        if let Some((_, span)) = rule.below_peers_by.written().filter(|_| below_peers_bp == 0) {
            found.error(span, "`below_peers_by` of 0% would take out every endpoint but the best").hint("write `10%`");
        }
        model::SuccessRule { below_peers_bp, min_requests: rule.min_requests.value().0 }
    });
    let latency = it.latency.get().map(|rule| {
        let ratio = rule.max_ratio.value().0;
        if let Some((_, span)) = rule.max_ratio.written().filter(|_| !(RATIO_LEAST..=RATIO_MOST).contains(&ratio)) {
            found
                .error(span, format!("`max_ratio` is not between {RATIO_LEAST} and {RATIO_MOST}"))
                .why("medians are compared in steps of a half: less would be chance");
        }
        model::SlowRule {
            max_ratio_hundredths: (ratio.clamp(RATIO_LEAST, RATIO_MOST) * 100.0).round() as u32,
            at_least: rule.at_least.value().0,
            min_requests: rule.min_requests.value().0,
        }
    });
    if let Some(key) = it.every.key().filter(|_| it.success_rate.is_missing() && it.latency.is_missing()) {
        found.warning(key, "`every` has no effect").why("nothing is compared without `success_rate` or `latency`");
    }
    model::Outlier {
        consecutive_failures: it.consecutive_failures.value().0 as u32,
        success_rate,
        latency,
        every: it.every.value().0,
        eject_for,
        eject_for_max,
        max_ejected_bp: it.max_ejected.value().0,
    }
}

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
    let hedge_after = it.hedge.get().and_then(|hedge| hedge_after(hedge, it, raw, found));
    if attempts == 0 {
        let budget = it.budget.key().filter(|_| hedge_after.is_none());
        for key in [it.on.key(), budget, it.methods.key(), it.per_try_timeout.key()].into_iter().flatten() {
            found.warning(key, "this has no effect: `attempts` is 0");
        }
    }
    let methods = it.methods.get().copied().unwrap_or(RetryMethods::Safe);
    model::Retry { attempts, on, methods, budget_bp, per_try_timeout, hedge_after }
}

/// A hedge hands one connection over and opens another, so both must be plain TCP with a request of their own.
fn hedge_after(hedge: &raw::Hedge, retry: &raw::Retry, raw: &raw::Service, found: &mut Found) -> Option<Duration> {
    let at = retry.hedge.key().unwrap_or_default();
    if let Some((protocol, _)) = raw.upstream.get().and_then(|it| it.protocol.written())
        && *protocol != Protocol::H1
    {
        found
            .error(at, "`hedge` needs endpoints that speak HTTP/1.1")
            .why("over HTTP/2 requests share a connection, which cannot be handed over")
            .hint("remove `hedge`; `per_try_timeout` works with HTTP/2");
    }
    if let Some(upstream) = raw.upstream.get() {
        for (key, name) in
            [(upstream.tls.key(), "upstream.tls"), (upstream.proxy_protocol.key(), "upstream.proxy_protocol")]
        {
            if let Some(key) = key {
                found
                    .error(key, format!("`retry.hedge` cannot go with `{name}`"))
                    .why("a hedge hands a plain connection over and opens another")
                    .hint("remove one of them; `per_try_timeout` works with both");
            }
        }
    }
    let versions = raw.versions.get().into_iter().flat_map(|versions| versions.iter());
    let lists = versions.filter_map(|version| version.value.as_ref()?.endpoints.get());
    let (mut several, mut unix) = (false, None);
    for list in lists {
        let places = list.good().filter_map(|(endpoint, span)| match endpoint {
            raw::Endpoint::At(place) => Some((&place.0, span)),
            raw::Endpoint::With(keys) => keys.address.written().map(|(place, span)| (&place.0, span)),
        });
        let mut count = 0;
        for (place, span) in places {
            match place {
                EndpointAddress::Unix(_) => unix = unix.or(Some(span)),
                EndpointAddress::Ip(_) => count += 1,
                // A name may have several addresses.
                EndpointAddress::Name { .. } => count += 2,
            }
        }
        several |= count > 1;
    }
    if let Some(span) = unix {
        found
            .error(span, "`hedge` needs endpoints reached over TCP")
            .why("only there does the kernel say whether an answer has begun")
            .hint("give an address and a port, or remove `hedge`");
    } else if !several && !raw.versions.is_missing() {
        found.warning(at, "`hedge` has no effect").why("no version has a second endpoint");
    }
    if let Some((_, span)) = retry.budget.written().filter(|(budget, _)| budget.0 == 0) {
        found.error(span, "a budget of 0% allows no hedge").hint("write `20%`, or remove `hedge`");
    }
    let (after, span) = hedge.after.written()?;
    let attempt = retry.per_try_timeout.get().map(|time| time.0);
    let request = raw.timeouts.get().and_then(|it| it.request.get()).map(|time| time.0);
    for (limit, name) in [(attempt, "per_try_timeout"), (request, "timeouts.request")] {
        if limit.is_some_and(|limit| after.0 >= limit) {
            found
                .error(span, "`after` can never be reached")
                .why(format!("`{name}` ends the wait of the first endpoint and is not longer"));
        }
    }
    Some(after.0)
}

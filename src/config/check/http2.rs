//! HTTP/2 on a listener, and towards endpoints.

use super::super::found::Found;
use super::super::model::{self, Protocol};
use super::super::raw;

pub fn http2(raw: &raw::Listener) -> model::Http2 {
    let Some(raw) = raw.http2.get() else { return model::Http2::default() };
    model::Http2 {
        prior_knowledge: raw.prior_knowledge.value().0,
        streams: raw.streams.value().0 as u32,
        window: raw.window.value().0 as u32,
        resets: raw.resets.value().0 as u32,
        control_frames: raw.control_frames.value().0 as u32,
    }
}

/// Copies of requests are sent over HTTP/1.1: a canary that only speaks HTTP/2 would seem to fail.
pub fn no_mirror(raw: &raw::Service, found: &mut Found) {
    let Some((protocol, span)) = raw.upstream.get().and_then(|it| it.protocol.written()) else { return };
    let stages = raw.rollout.get().and_then(|rollout| rollout.stages.get());
    let mirrors = stages.is_some_and(|stages| {
        stages.good().any(|(stage, _)| matches!(stage, raw::Stage::Full(keys) if !keys.mirror.is_missing()))
    });
    if *protocol != Protocol::H1 && mirrors {
        found
            .error(span, "a rollout with a `mirror` stage needs endpoints that speak HTTP/1.1")
            .why("copies are sent as HTTP/1.1")
            .hint("begin with a small share instead: `stages: [1%, …]`");
    }
}

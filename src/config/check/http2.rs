//! HTTP/2 on a listener.

use super::super::model;
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

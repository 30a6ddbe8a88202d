//! HTTP/2 on a listener.

use serde_json::{Value, json};

use super::super::model::Http2;
use super::super::scalar::write_size;

pub fn http2(http2: &Http2) -> Value {
    json!({
        "prior_knowledge": http2.prior_knowledge,
        "streams": http2.streams,
        "window": write_size(u64::from(http2.window)),
        "resets": http2.resets,
        "control_frames": http2.control_frames,
    })
}

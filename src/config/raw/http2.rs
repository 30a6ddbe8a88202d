//! HTTP/2 as written: what a listener takes, and how a service's endpoints are spoken to.

use crate::config::keys::keys;
use crate::config::scalar::{Count, Flag, Size};

keys! {
    /// HTTP/2 connections of clients.
    Http2 {
        /// On a listener without TLS, takes clients that begin with HTTP/2 at once (h2c, such as gRPC clients use
        /// inside a cluster). With TLS, HTTP/2 is negotiated and this key says nothing.
        prior_knowledge: Flag = default("true"),
        /// Requests that one connection may have open at once.
        streams: Count<1, 10_000> = default("100"),
        /// Bytes of a request body that may be on their way before the endpoint takes them; four times as much
        /// for all of a connection.
        window: Size<65_535, 16_777_216> = default("256KiB"),
        /// Requests a client may cancel in 10 s, beyond as many as were answered; its connection is closed above.
        resets: Count<1, 1_000_000> = default("200"),
        /// Frames in 10 s that neither ask nor bring anything (SETTINGS, PING, PRIORITY, empty DATA); the
        /// connection is closed above.
        control_frames: Count<10, 1_000_000> = default("1000"),
    }
}

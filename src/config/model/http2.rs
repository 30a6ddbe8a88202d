//! HTTP/2 on a listener, and towards endpoints.

/// Bounds on what one HTTP/2 connection of a client may ask of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    /// Without TLS, a connection may begin with the preface of HTTP/2.
    pub prior_knowledge: bool,
    /// Streams open at once on one connection. Default 100.
    pub streams: u32,
    /// Flow-control window of a stream; a connection has four times as much. Default 256 KiB.
    pub window: u32,
    /// RST_STREAM frames in 10 s, beyond answered streams. Default 200.
    pub resets: u32,
    /// Frames in 10 s that carry nothing. Default 1000.
    pub control_frames: u32,
}

impl Default for Http2 {
    fn default() -> Http2 {
        Http2 { prior_knowledge: true, streams: 100, window: 256 * 1024, resets: 200, control_frames: 1000 }
    }
}

/// What the endpoints of a service are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    #[default]
    H1,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
    /// HTTP/2 over TLS, which the endpoint must agree to.
    H2,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::H1, Protocol::H2c, Protocol::H2];
}

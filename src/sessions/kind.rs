//! The kinds of exchange that are counted and drained separately.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    Http = 0,
    Sse = 1,
    WebSocket = 2,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Http, Kind::Sse, Kind::WebSocket];
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Sse => "sse",
            Kind::WebSocket => "websocket",
        }
    }
    /// Event streams and WebSockets: long-lived on purpose.
    pub fn is_stream(self) -> bool {
        match self {
            Kind::Http => false,
            Kind::Sse | Kind::WebSocket => true,
        }
    }
}

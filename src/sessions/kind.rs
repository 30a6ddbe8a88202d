//! The kinds of exchange that are counted and drained separately.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    Http = 0,
    Sse = 1,
    WebSocket = 2,
    /// A gRPC call whose answer stays open.
    Grpc = 3,
}

impl Kind {
    pub const COUNT: usize = 4;
    pub const ALL: [Kind; Kind::COUNT] = [Kind::Http, Kind::Sse, Kind::WebSocket, Kind::Grpc];
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Sse => "sse",
            Kind::WebSocket => "websocket",
            Kind::Grpc => "grpc",
        }
    }
    /// Event streams, WebSockets and calls that stay open: long-lived on purpose.
    pub fn is_stream(self) -> bool {
        match self {
            Kind::Http => false,
            Kind::Sse | Kind::WebSocket | Kind::Grpc => true,
        }
    }
}

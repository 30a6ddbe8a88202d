//! Bytes on a client connection, looked at without IO: what a balancer announces, request heads,
//! chunked bodies, WebSocket frames, event streams.
//!
//! Everything here is pure: bytes in, a verdict out, resumable at any byte. The HTTP engine parses the same
//! bytes again, so the rule is to be stricter than it: what `wire` lets through has one reading only.

pub mod authority;
pub mod body;
pub mod calm;
pub mod chunked;
pub mod events;
mod fields;
pub mod frames;
pub mod head;
pub mod head2;
mod hpack;
pub mod keep_alive;
mod messages;
pub mod opening;
pub mod proxy_header;
mod request_line;
pub mod response;
pub mod token;
pub mod trailers;
pub mod websocket;

pub use body::{BadChunk, BodyTracker};
pub use head::{
    Head, HeadLimits, Parsed, Refusal, RequestBody, Span, TargetForm, Upgrade, Version, origin_form, parse,
};
pub use opening::{Opening, opening};
pub use response::{Boundary, Cut, Farewell, ResponseTracker};

//! What the tests are written with: a world (folder, address, the real process), origins with faults,
//! clients that record and never retry, load, and waiting with a deadline.

pub mod client;
pub mod config;
pub mod dns;
pub mod http2;
pub mod http2_origin;
pub mod http2_tap;
pub mod load;
pub mod origin;
pub mod rollouts;
pub mod serve;
pub mod streams;
pub mod supervised;
pub mod tls;
pub mod tls_front;
pub mod wait;
pub mod wire;
pub mod world;

pub use client::{Client, Outcome};
pub use config::{one_service, service};
pub use load::Load;
pub use origin::{Fault, Origin};
pub use streams::{SseClient, SseEnd, WsClient, WsEnd};
pub use wait::{soon, until, within};
pub use world::{Hardship, World};

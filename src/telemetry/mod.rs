//! What the proxy tells about itself: events, metrics, logs.

pub mod events;
pub mod names;

pub use events::{Event, Events, unix_ms};

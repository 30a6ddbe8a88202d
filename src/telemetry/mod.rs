//! What the proxy tells about itself: events, metrics, logs.

pub mod events;

pub use events::Events;

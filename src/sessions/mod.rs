//! What is in flight, by version and kind, and how it comes to an end.

pub mod connections;
mod deadlines;
pub mod drain;
mod draining;
pub mod in_flight;
pub mod kind;

pub use drain::{Drainer, Going, Leaving};
pub use in_flight::InFlight;
pub use kind::Kind;

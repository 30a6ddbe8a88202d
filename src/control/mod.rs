//! The only writer. Everything that can change what is live comes here as one event, is decided in one
//! place, published as one generation, and journaled.

pub mod api;
pub mod handle;
pub mod live;
pub mod phase;
pub mod ports;

pub use handle::{Handle, Question};
pub use live::{Live, Snapshot};
pub use phase::Phase;

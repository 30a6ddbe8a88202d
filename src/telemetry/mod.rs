//! What the proxy tells about itself: events, metrics, logs.

pub mod access_log;
pub mod carried;
pub mod events;
mod exposition;
pub mod logs;
pub mod names;
mod process;
pub mod recorder;
mod scrape;
mod series;

pub use access_log::{AccessLog, AccessRecord};
pub use carried::Counts;
pub use events::{Event, Events, unix_ms};
pub use recorder::{Sources, Telemetry};

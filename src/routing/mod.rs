//! From a configuration to answers: which route, which service, which version, and why.
//!
//! Pure: no clock, no input or output, no randomness. Health, time and entropy are handed in.

pub mod choose;
pub mod compile;
pub mod generation;
pub mod host;
pub mod matcher;
pub mod path;
pub mod split;
pub mod sticky;
pub mod table;

pub use choose::{Choice, Client, Ready, Reason, choose, choose_anyway};
pub use generation::{Generation, Stamp};
pub use split::{Bucket, Share, Split, Thread};
pub use sticky::{ClientKey, StickyCookie};
pub use table::{RouteIdx, ServiceIdx, Table, VersionIdx};

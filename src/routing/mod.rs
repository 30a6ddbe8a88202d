//! From a configuration to answers: which route, which service, which version, and why.
//!
//! Pure: no clock, no input or output, no randomness. Health, time and entropy are handed in.

mod bucket;
pub mod choose;
pub mod compile;
mod conditions;
pub mod diff;
pub mod generation;
pub(crate) mod hash;
pub mod host;
mod matched;
pub mod matcher;
mod order;
pub mod path;
mod patterns;
pub mod rewrite;
pub mod split;
pub mod sticky;
pub mod table;

pub use bucket::Bucket;
pub use choose::{Choice, Client, Ready, Reason, choose, choose_anyway};
pub use diff::Difference;
pub use generation::{Generation, Stamp};
pub use matched::{Matched, Met};
pub use order::is_first;
pub use split::{Share, Split, Thread};
pub use sticky::{ClientKey, StickyCookie};
pub use table::{RouteIdx, ServiceIdx, Table, VersionIdx};

#[cfg(test)]
mod tests;

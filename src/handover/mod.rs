//! What a supervisor and its workers say to each other, and the private pair of sockets they say it over.
//!
//! The pair has no name anywhere: only who inherits an end can speak. Each message is one packet of JSON, with at
//! most one descriptor beside it.

mod channel;
mod message;
mod parcel;

pub use channel::{Channel, Received};
pub use message::{Asked, BindError, FORMAT, FromWorker, Left, Outcome, Tally, ToWorker, UpgradeResult};
pub use parcel::{pack, unpack};

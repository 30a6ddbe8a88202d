//! What must survive a crash, in SQLite: generations with their text, what operators changed on top of
//! the file, audit.
//!
//! Nothing that serves waits for it: a publish is recorded after the flip, by a thread of its own that is
//! fed through a bounded queue. If a record cannot be written (disk full) it is kept and tried again, and
//! the trouble is shown until it is over. Reading is the opposite: a store that is damaged, unreadable or
//! written by a newer version is never taken for an empty one (I9). It is kept twice (`pair.rs`), and a damaged file is
//! replaced by its copy; if both are damaged the process refuses to start on them. What can be read but not written is
//! read: a full disk or a read-only directory keeps nobody from starting again.

mod lock;
mod pair;
mod schema;
mod seal;
mod store;
mod writer;

pub use pair::COPY;
pub use schema::JournalError;
pub use store::{FILE, Record, Remembered, Standing, Whole};
pub use writer::Journal;

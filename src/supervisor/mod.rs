//! The small process above: it keeps the listening sockets, starts the worker that serves, starts it again when
//! it dies, and puts a new one in its place for an upgrade. It speaks no HTTP and reads no configuration.
//!
//! ```text
//! machine.rs  what happens → what to do [pure]
//! run.rs      one thread, one poll(2): signals, workers' messages, ends of processes, time
//! table.rs    the sockets, and which worker uses which
//! binary.rs   which program a worker is started from
//! process.rs  starting one
//! replace.rs  becoming a newer program itself
//! notify.rs   what systemd is told
//! sys.rs      the system calls that std does not have
//! ```
//!
//! As process 1 of a container it also reaps what others left behind and passes signals on.

mod binary;
mod machine;
mod notify;
mod process;
mod replace;
mod run;
mod sys;
mod table;

pub use run::{Beginning, arguments, run};
pub use sys::name_process;

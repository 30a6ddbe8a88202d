//! Sockets: listeners that come and go with the configuration, and the client's side of a connection.
//!
//! A [`Link`] is a client's socket with its buffers. The connection's task keeps it; the HTTP engine gets
//! an [`EngineIo`] for one request at a time, through which it sees exactly that request's bytes.

pub mod accept;
pub mod arrival;
pub mod buffers;
pub mod clock;
pub mod entrance;
pub mod io;
pub mod link;
pub mod listeners;
pub mod proxy_protocol;
pub mod socket;
pub mod stage;
pub mod tls;

pub use arrival::{Arrived, arrive};
pub use io::EngineIo;
pub use link::{Deadline, Fate, Link, Offer, ReadFailure, Waits};
pub use listeners::{ListenerState, Manager};
pub use socket::Socket;
pub use stage::{Stage, StageFlag};

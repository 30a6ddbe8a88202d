//! TLS on listeners. rustls does the cryptography; here is which configuration a client gets, and how long it
//! may take to get it.
//!
//! A listener with certificates has one [`Server`]: a rustls configuration for each certificate, chosen by the
//! name that the client asks for before anything else is decided, so that every name can ask its clients for
//! certificates of their own. A server is immutable. Another configuration, or other content of its files, is
//! another server, stored in the place of the one before: handshakes that have begun and connections that are
//! open keep what they have.
//!
//! | File | |
//! |---|---|
//! | [`server`] | certificates by name; whom a connection may speak to |
//! | [`handshake`] | from an accepted socket to an encrypted one, within a deadline |
//! | [`gate`] | how many handshakes there are at once, and which one makes room |
//! | [`secured`] | what is known of an encrypted connection |
//! | [`tickets`] | the keys that let a client come back without a full handshake |
//! | [`keeper`] | notices changed files and swaps; watches dates |
//! | `outbound` | the same for TLS to endpoints |
//!
//! Left out on purpose: 0-RTT (a request in it can be replayed), TLS 1.1 and older, revocation lists, ACME.

pub mod gate;
pub mod handshake;
pub mod keeper;
mod outbound;
pub mod secured;
pub mod server;
pub mod status;
pub mod tickets;

pub use secured::Secured;
pub use server::Server;

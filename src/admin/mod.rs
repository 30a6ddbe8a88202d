//! The HTTP API for operators: one small server beside the traffic, never in its way.
//!
//! [`server`] accepts on a TCP address or a Unix socket and moves to another one without losing a call.
//! A call passes [`guard`] (no foreign host, no foreign site, the token for whatever changes state), is
//! named by [`route`], and is answered from the control [`Handle`](crate::control::Handle) by [`read`]
//! or [`change`]. Whatever goes wrong is told as a [`problem`] document (RFC 9457). [`events`] streams
//! what happens as server-sent events.
//!
//! Left out on purpose: TLS and user accounts. The API listens on loopback or on a Unix socket; who can
//! read `admin.token` may change what is live.

mod body;
mod change;
mod events;
mod guard;
mod problem;
pub mod query;
mod read;
mod route;
mod server;
mod sockets;
mod stall;
pub mod token;
pub mod unique;
pub mod units;

pub use problem::Document as Refusal;
pub use server::Admin;
pub use token::Token;

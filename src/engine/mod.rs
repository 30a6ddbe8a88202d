//! The HTTP engine: Pingora's phases, thin, driven from our own connection loop.
//!
//! In the order of a request: [`connection`] (wait for a head, close), `under_way` (run the engine on one exchange), [`app`] (which
//! phase calls what), [`decide`] (where it goes), [`headers`] and [`answer`] (what is sent), [`context`]
//! (what it carries, and its account at the end); for rollouts, `judged` (evidence, the shield) and `recall`
//! (calling back what a canary keeps waiting); `hedge` (asking a second endpoint beside the first).

pub mod admit;
#[cfg(test)]
mod agreement;
pub mod answer;
pub mod app;
mod at_once;
pub mod compress;
pub mod connection;
pub mod context;
pub mod copies;
pub mod decide;
mod dialer;
pub mod direct;
mod entropy;
mod failure;
mod gate;
mod grpc;
pub mod headers;
mod hedge;
pub mod held;
mod http2;
mod judged;
pub mod mirror;
pub mod origin;
mod peer;
mod protocol;
mod recall;
mod request_id;
pub mod respond;
mod retry;
mod secured;
pub mod services;
mod shared;
pub mod threads;
mod trouble;
mod under_way;
mod ways;

pub use services::Services;

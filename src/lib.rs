//! Switchback: an edge reverse proxy that carries its own progressive-delivery controller.

pub mod admin;
pub mod alerts;
pub mod allocator;
pub mod analysis;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod endpoints;
pub mod engine;
pub mod evidence;
pub mod handover;
pub mod journal;
pub mod limits;
pub mod net;
pub mod outcome;
pub mod rollout;
pub mod routing;
pub mod sessions;
pub mod simulate;
pub mod sockets;
pub mod supervisor;
pub mod telemetry;
pub mod wire;
pub mod worker;

//! Switchback: an edge reverse proxy that carries its own progressive-delivery controller.

pub mod config;
pub mod control;
pub mod endpoints;
pub mod outcome;
pub mod routing;
pub mod sessions;
pub mod telemetry;

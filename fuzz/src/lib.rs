//! The parts of switchback that read what strangers write, without the rest: an instrumented build of these takes a
//! minute, one of the whole program ten. The name of the crate is the same, so `targets.rs` fits both.

#![allow(dead_code, unused_imports)]

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/routing/mod.rs"]
pub mod routing;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

pub mod engine;
pub mod net;

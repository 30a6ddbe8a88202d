//! Of the engine's side only what decides about fields.

#[path = "../../src/engine/headers.rs"]
pub mod headers;

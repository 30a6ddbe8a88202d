//! What is known of endpoints while they run: health, ejection, resolved addresses.

pub mod state;

pub use state::{EndpointRuntime, Health, Runtime, ServiceCore, ServiceRuntime, VersionCore, VersionRuntime};

//! What is known of endpoints while they run: health, ejection, resolved addresses; and which one is next.

pub mod budget;
pub mod carry;
pub mod checks;
mod flaps;
mod grpc;
pub mod health;
pub mod hold;
pub mod life;
mod outlier;
pub mod panic;
mod peers;
pub mod pick;
mod probe;
mod resolve;
pub mod state;
pub mod tally;
#[cfg(test)]
pub(crate) mod testing;
mod warm;

pub use carry::Carried;
pub use checks::Checks;
pub use hold::HoldEnd;
pub use outlier::Passive;
pub use pick::{Picked, pick};
pub use state::{EndpointRuntime, Health, Runtime, ServiceCore, ServiceRuntime, VersionCore, VersionRuntime};

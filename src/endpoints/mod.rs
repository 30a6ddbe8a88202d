//! What is known of endpoints while they run: health, ejection, resolved addresses; and which one is next.

mod balance;
pub mod budget;
pub mod carry;
pub mod checks;
pub mod dial;
mod dns;
mod flaps;
mod group;
mod grpc;
pub mod health;
pub mod hold;
mod http2_probe;
pub mod keeping;
pub mod life;
mod outlier;
pub mod panic;
mod peers;
pub mod pick;
mod probe;
pub mod proxy_header;
mod resolve;
pub mod room;
pub mod secure;
mod share;
pub mod state;
pub mod tally;
#[cfg(test)]
pub(crate) mod testing;
mod tickets;
mod warm;

pub use carry::Carried;
pub use checks::Checks;
pub use group::{Group, VersionRuntime};
pub use hold::HoldEnd;
pub use outlier::Passive;
pub use pick::{Ask, Picked, Unpicked, pick};
pub use room::Place;
pub use secure::{Secure, SecureCell};
pub use state::{At, EndpointRuntime, Health, Runtime, ServiceCore, ServiceRuntime, VersionCore};

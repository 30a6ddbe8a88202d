//! Tables and numbers that balancing works with: made when a version's endpoints change, only read per request.

mod ewma;
mod order;
mod ring;

pub use ewma::Ewma;
pub(super) use order::Order;
pub(super) use ring::Ring;

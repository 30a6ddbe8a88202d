//! Text to [`Config`]: parse with places, check everything at once, resolve names, fill defaults.

pub mod load;
pub mod model;
pub mod problem;

pub use model::Config;
pub use problem::{Place, Problem, Problems, Severity};

//! Text to [`Config`]: parse with places, check everything at once, resolve names, fill defaults.
//!
//! The way of a file: [`load`] reads it, [`tree`] parses it, [`env`] fills in variables, [`merge`] joins
//! several files, [`decode`] and [`keys`] read the tree as [`raw`] types, [`check`] makes a [`Config`] of them. Each
//! step adds to what was [`found`]; at the end that becomes [`Problems`], in file order.
//! The other way: [`render`] writes a [`Config`] as text, [`schema`] and `reference` describe the format.

pub mod certificate;
mod check;
mod decode;
mod env;
mod found;
mod hashing;
mod hint;
mod keys;
pub mod load;
mod merge;
pub mod model;
pub mod problem;
mod raw;
pub mod reference;
pub mod render;
pub mod report;
mod scalar;
pub mod schema;
#[cfg(test)]
mod tests;
mod tree;

pub use env::expanded;
pub use hashing::{digest, hex};
pub(crate) use hint::{list, nearest};
pub use model::Config;
pub use problem::{Place, Problem, Problems, Severity};
pub use scalar::{GrpcCode, rfc3339};
pub(crate) use scalar::{parse_time, write_time};

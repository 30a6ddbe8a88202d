//! The scalars of the format: each knows its spelling, its bounds and what to say when they are missed.

mod fields;
mod net;
mod text;
mod units;

pub use fields::{Header, HeaderText, MethodName, StatusRange};
pub use net::{AdminBind, Bind, Endpoint, is_host_name};
pub use text::{AnyText, Count, Flag, LogTarget, Name, Text, Weight};
pub use units::{BodyLimit, Percent, Size, Time, write_percent, write_size, write_time};

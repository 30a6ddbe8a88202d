//! The scalars of the format: each knows its spelling, its bounds and what to say when they are missed.

mod choice;
mod date;
mod fields;
mod frequency;
mod net;
mod network;
mod rate;
mod text;
mod units;

pub use choice::Word;
pub use date::rfc3339;
pub use date::{parse_date, parse_minutes, write_date, write_minutes};
pub use fields::{GrpcCode, Header, HeaderText, MediaTypeText, MethodName, StatusRange};
pub use frequency::{Frequency, write_frequency};
pub use net::{AdminBind, Bind, HttpUrl, Place, is_host_name};
pub use network::Network;
pub use rate::{Number, Quantile, Rate, write_rate};
pub use text::{AnyText, Count, Flag, LogTarget, Name, Text, Weight};
pub use units::{BodyLimit, Percent, Size, Time, parse_time, write_percent, write_size, write_time};

//! What became of each request: its class, and the counters it moves.

pub mod codes;
pub mod grpc;
pub mod meter;

pub use codes::{Codes, CodesKey, CodesRegistry};
pub use grpc::{CODES as GRPC_CODES, GrpcCodes};
pub use meter::{DURATION_BOUNDS, Durations, ErrorClass, Errors, Hedged, Meter, RetryReason};

//! What a failure of the engine means: for the client, for the counters, for a second chance.

use pingora_error::{Error, ErrorSource, ErrorType};

use super::context::Context;
use crate::net::ReadFailure;
use crate::outcome::ErrorClass;

/// A pooled connection turned out to be closed, before a byte of the answer.
pub fn is_stale(error: &Error, ctx: &Context, reused: bool) -> bool {
    let is_closed = matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError)
        || super::protocol::is_gone(error);
    reused && ctx.status == 0 && is_closed && *error.esource() == ErrorSource::Upstream
}

/// The status for the client and the class for the counters.
pub fn classify(error: &Error, ctx: &Context) -> (u16, ErrorClass) {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, HTTPStatus, InvalidHTTPHeader, ReadTimedout,
        TLSHandshakeFailure, WriteTimedout,
    };
    match ctx.link.read_failure() {
        Some(ReadFailure::TooLarge) => return (413, ErrorClass::Local),
        Some(ReadFailure::BadFraming) => return (400, ErrorClass::DownstreamAbort),
        None => {}
    }
    if let HTTPStatus(status) = error.etype() {
        return (*status, ErrorClass::Local);
    }
    match error.esource() {
        ErrorSource::Downstream => match error.etype() {
            InvalidHTTPHeader => (400, ErrorClass::DownstreamAbort),
            _ => (499, ErrorClass::DownstreamAbort),
        },
        ErrorSource::Upstream => match error.etype() {
            ConnectTimedout => (504, ErrorClass::Connect),
            ConnectRefused | ConnectNoRoute | ConnectError | TLSHandshakeFailure => (502, ErrorClass::Connect),
            ErrorType::SocketError | ErrorType::BindError => (502, ErrorClass::Connect),
            ReadTimedout | WriteTimedout => (504, ErrorClass::Timeout),
            _ if is_stale(error, ctx, ctx.attempt.as_ref().is_some_and(|attempt| attempt.reused)) => {
                (502, ErrorClass::ReusedStale)
            }
            _ => (502, ErrorClass::Reset),
        },
        ErrorSource::Internal | ErrorSource::Unset => (500, ErrorClass::Local),
    }
}

/// For the client: says nothing of endpoints.
pub fn explain(status: u16, ctx: &Context) -> &'static str {
    match status {
        400 => "the request is not valid HTTP",
        413 => "the request body is too large",
        502 if ctx.attempts == 0 => "no endpoint could be reached",
        502 => "the endpoint did not give a valid answer",
        503 => "no endpoint is ready",
        504 => "the endpoint did not answer in time",
        _ => "the request failed",
    }
}

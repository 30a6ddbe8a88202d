//! Failures of TLS to endpoints, in words that an operator can act on: in the log, and in `status` as the last thing
//! that happened to the endpoint. Each is told once.

use pingora_error::{Error, ErrorType};
use tracing::warn;

use super::context::Context;
use super::dialer::HANDSHAKE_LATE;
use crate::endpoints::secure;

pub fn to_connect(error: &Error, ctx: &Context) {
    let Some(why) = error.context.as_ref().map(|context| context.as_str()) else { return };
    if *error.etype() == ErrorType::TLSHandshakeFailure || why.starts_with(HANDSHAKE_LATE) {
        tell(why, ctx);
    }
}

/// In TLS 1.3 an endpoint may refuse what the handshake was when that is over for us.
pub fn after_connect(error: &Error, ctx: &Context) {
    if let Some(cause) = &error.cause
        && let Some(why) = secure::explain_late(cause.as_ref())
    {
        tell(&why, ctx);
    }
}

fn tell(why: &str, ctx: &Context) {
    let Some(attempt) = &ctx.attempt else { return };
    let endpoint = &attempt.endpoint;
    if endpoint.changes_to(why) {
        warn!(service = %endpoint.service, version = %endpoint.version, endpoint = endpoint.label(), why, "TLS to an endpoint failed");
    }
}

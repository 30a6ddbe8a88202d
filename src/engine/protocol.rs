//! How an endpoint is spoken to, and what HTTP/2 says about a request that failed.

use std::time::Duration;

use h2::Reason;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};

use crate::config::model::{Protocol, Upstream};
use crate::wire::Upgrade;

/// Requests that share one HTTP/2 connection to an endpoint, if the endpoint allows as many.
const STREAMS: usize = 100;
/// Bytes of an answer that may be on their way, for each stream; the library's 64 KiB make a wide network narrow.
const WINDOW: u32 = 256 * 1024;

/// Sets what the connection speaks. `true`: it is shared with other requests, and must outlive any of them.
pub fn speak(peer: &mut HttpPeer, upstream: &Upstream, upgrade: Option<Upgrade>) -> bool {
    match (upstream.protocol, upgrade) {
        (Protocol::H1, _) => false,
        // A WebSocket is a whole connection, and HTTP/1.1 is how it begins.
        (Protocol::H2c | Protocol::H2, Some(_)) => false,
        (Protocol::H2c | Protocol::H2, None) => {
            let options = &mut peer.options;
            // Over TLS it is the handshake that says it.
            if upstream.protocol == Protocol::H2c {
                options.set_http_version(2, 2);
            }
            options.max_h2_streams = STREAMS;
            options.h2_stream_window_size = Some(WINDOW);
            options.h2_connection_window_size = Some(WINDOW * 4);
            options.h2_ping_interval = upstream.ping.filter(|every| *every > Duration::ZERO);
            true
        }
    }
}

fn cause(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// The endpoint says that it has not begun with the request, whatever it is: it refused the stream (RFC 9113 section
/// 8.7), or went away and named an earlier one as its last (section 6.8), for whatever reason it goes. The library
/// reports a GOAWAY of the other side to those streams only; one that the endpoint may have begun goes on, and meets the
/// end of the connection, which says nothing of what has run.
pub fn was_refused(error: &Error) -> bool {
    cause(error).is_some_and(|cause| {
        let refused = cause.is_reset() && cause.reason() == Some(Reason::REFUSED_STREAM);
        cause.is_remote() && (refused || cause.is_go_away())
    })
}

/// The endpoint had answered before it had read everything, and reads no more: the answer was passed on, and the
/// engine only says that it did not send the rest.
pub fn ended_early(error: &Error) -> bool {
    let said = error.context.as_ref().map(|context| context.as_str());
    *error.etype() == ErrorType::WriteError && said == Some("downstream_state is_errored")
}

/// The shared connection turned out to be gone, or was given up because of what the endpoint sent on it; which may have
/// been meant for another stream.
pub fn is_gone(error: &Error) -> bool {
    let by_connection = matches!(error.etype(), ErrorType::H2Error | ErrorType::InvalidH2);
    by_connection && cause(error).is_none_or(|cause| cause.is_io() || cause.is_go_away())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: Reason) -> Box<Error> {
        Error::because(ErrorType::H2Error, "while reading", h2::Error::from(reason))
    }

    #[test]
    fn only_what_the_endpoint_itself_refused_is_safe() {
        // The library's own errors are not the endpoint's word.
        assert!(!was_refused(&failed(Reason::REFUSED_STREAM)));
        assert!(!was_refused(&failed(Reason::INTERNAL_ERROR)));
        assert!(!was_refused(&Error::explain(ErrorType::H2Error, "no cause")));
    }

    #[test]
    fn websockets_keep_a_connection_of_their_own() {
        let upstream = |protocol| Upstream { protocol, ..Upstream::default() };
        let peer = || HttpPeer::new("127.0.0.1:1", false, String::new());
        let mut shared = peer();
        assert!(speak(&mut shared, &upstream(Protocol::H2c), None));
        assert_eq!(shared.options.max_h2_streams, STREAMS);
        let mut own = peer();
        assert!(!speak(&mut own, &upstream(Protocol::H2c), Some(Upgrade::WebSocket)));
        assert_eq!(own.options.alpn.get_max_http_version(), 1);
        assert!(!speak(&mut own, &upstream(Protocol::H1), None));
    }
}

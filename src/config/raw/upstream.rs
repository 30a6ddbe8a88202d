//! Connections to endpoints as written.

use crate::config::keys::keys;
use crate::config::model::{Protocol, ProxyHeader, Verify};
use crate::config::scalar::{Flag, Text, Time};

keys! {
    /// Connections to the endpoints.
    Upstream {
        /// What the endpoints speak: `h1`; `h2c`, which is HTTP/2 without TLS; or `h2`, which is HTTP/2 over TLS. gRPC
        /// needs one of the last two. WebSockets go over HTTP/1.1 all the same.
        protocol: Protocol = default("h1"),
        /// Asks an HTTP/2 connection this often whether its endpoint is still there. Without it, never: gRPC servers
        /// allow one ping in five minutes unless they are told otherwise.
        ping: Time<1_000> = optional,
        /// Idle connections kept for the next request.
        keepalive: Keepalive = section,
        /// TLS to the endpoints. Without it, connections are not encrypted. Files that change are read again by
        /// themselves.
        tls: UpstreamTls = optional,
        /// Begins each connection with a header of the PROXY protocol that says the client's address: `v1` or `v2`. Such a
        /// connection is then for one connection of that client only.
        proxy_protocol: ProxyHeader = optional,
    }
}

keys! {
    /// Idle connections kept for the next request.
    Keepalive {
        /// They are closed after this: before the endpoint closes them (common servers do at 5 s).
        idle: Time<1> = default("4s"),
    }
}

keys! {
    /// TLS to the endpoints.
    UpstreamTls {
        /// PEM: the authorities that vouch for endpoints, relative to this file. Without it, those that the system
        /// trusts.
        ca_file: Text = optional,
        /// The name that endpoints are asked for and that their certificate must be for. Without it, the host name or
        /// IP address of each endpoint; a Unix socket has neither.
        sni: Text = optional,
        /// PEM: our certificate for endpoints that ask for one, then its chain. Needs `key_file`.
        cert_file: Text = optional,
        /// PEM: the private key of `cert_file`, not encrypted.
        key_file: Text = optional,
        /// `full`; or `off`: whoever answers at the address is believed. `off` needs `insecure: true` beside it.
        verify: Verify = default("full"),
        /// Says that `verify: off` is meant.
        insecure: Flag = default("false"),
    }
}

//! Who may come in, and how much of it: the policies of listeners, services and routes as written.

use crate::config::decode::List;
use crate::config::keys::keys;
use crate::config::model::policy::ProxyMode;
use crate::config::scalar::Network;

keys! {
    /// Which client addresses are let in. `deny` wins over `allow`.
    Access {
        /// Networks or addresses. With it, everybody else stays out.
        allow: List<Network> = optional,
        /// Networks or addresses that stay out.
        deny: List<Network> = optional,
    }
}

keys! {
    /// Load balancers before this listener announce whose connection they pass on (PROXY protocol, versions 1 and 2).
    /// The announced address is the client's everywhere.
    ProxyProtocol {
        /// `required`: only those of `from` may connect, and must send a header. `optional`: those of `from` may
        /// send one; everybody else is served as they are.
        mode: ProxyMode = default("required"),
        /// Who may announce another address: networks or addresses of the load balancers.
        from: List<Network> = required,
    }
}

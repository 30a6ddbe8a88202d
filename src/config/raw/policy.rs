//! Who may come in, and how much of it: the policies of listeners, services and routes as written.

use serde_json::{Value as Json, json};

use crate::config::decode::{Decode, List, OneOrMany};
use crate::config::found::Found;
use crate::config::keys::keys;
use crate::config::model::policy::{Coding, ProxyMode};
use crate::config::scalar::{
    AnyText, Count, Flag, Frequency, Header, HeaderText, MediaTypeText, Network, Size, Text, Time,
};
use crate::config::tree::{Node, Value};

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

keys! {
    /// How often each client may ask; 429 with Retry-After for what comes too early.
    RateLimit {
        /// Who is one client: `client_ip` (an IPv6 client is its /64), or `{ header: x-api-key }`. Requests without the
        /// header count by address.
        key: RateKey = default("client_ip"),
        /// A number and a time: `100/s`, `10/m`, `1000/h`.
        rate: Frequency = required,
        /// Requests that may come at once after a pause. Without it, the number in `rate`.
        burst: Count<1, 1_000_000> = optional,
    }
}

/// `client_ip`, or `{ header: … }`.
#[derive(Debug, Clone)]
pub enum RateKey {
    ClientIp,
    By(RateKeyBy),
}

keys! {
    /// By the value of a header.
    RateKeyBy {
        /// Its name.
        header: Header = required,
    }
}

impl Decode for RateKey {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "client_ip" => Some(Self::ClientIp),
            Value::Text(text) => {
                found
                    .error(node.span, format!("`{text}` does not tell clients apart"))
                    .hint("write `client_ip`, or `{ header: x-api-key }`");
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => RateKeyBy::decode(node, label, found).map(Self::By),
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [{ "const": "client_ip" }, RateKeyBy::shape()] })
    }
}

keys! {
    /// An answer of our own instead of the service's. Sockets and streams that are open stay.
    Maintenance {
        /// `false` keeps the page in the file while the service is open.
        enabled: Flag = default("true"),
        /// Status of the answer.
        status: Count<200, 599> = default("503"),
        /// The text sent. At most one of `body` and `file`.
        body: AnyText = optional,
        /// A file with the text, at most 256 KiB, relative to this file; read with the configuration.
        file: Text = optional,
        /// What the text is.
        content_type: HeaderText = default("text/plain; charset=utf-8"),
        /// When clients should come back.
        retry_after: Time<1_000> = optional,
        /// Networks or addresses of clients that are let through: testers.
        allow: List<Network> = optional,
    }
}

keys! {
    /// A name for each request: forwarded to the endpoint, written to the access log.
    RequestIds {
        /// The header that carries it.
        header: Header = default("x-request-id"),
        /// Keeps the name that came with the request: at most 64 visible ASCII characters, cut and cleaned. `false`
        /// makes a new one for every request.
        trust: Flag = default("true"),
        /// Sends it back with the answer.
        respond: Flag = default("false"),
    }
}

keys! {
    /// Makes answers smaller for clients that say that they can read them.
    Compression {
        /// One or a list of `zstd`, `br` and `gzip`: which are used, the first where a client likes several as much. Without
        /// it, all three in that order.
        algorithms: OneOrMany<Coding> = optional,
        /// From 1 (fast) to 9 (small).
        level: Count<1, 9> = default("4"),
        /// Smaller answers are left alone; those of unknown length are not.
        min_size: Size<0, 1_073_741_824> = default("1KiB"),
        /// Media types, or `text/*`. Without it, text, JSON, JavaScript, XML, SVG, WebAssembly and fonts that are not
        /// compressed themselves.
        types: List<MediaTypeText> = optional,
    }
}

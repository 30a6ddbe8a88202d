//! What `engine/headers.rs` names of the connection: the type as it is in `src/net/tls/secured.rs`, without TLS.

pub mod tls {
    pub mod secured {
        use http::HeaderValue;

        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct ClientCertificate {
            pub subject: HeaderValue,
            pub issuer: HeaderValue,
            pub alternatives: Option<HeaderValue>,
            pub fingerprint: HeaderValue,
        }
    }
}

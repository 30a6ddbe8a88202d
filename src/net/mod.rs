//! Accept loops, connections between requests, sockets by address.

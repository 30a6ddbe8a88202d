//! Bytes on a client connection, looked at without IO: request heads, chunked bodies, WebSocket frames, event streams.

//! The HTTP API for operators: auth, problem documents, events.

//! Pingora's phases, thin: what switchback decides is translated to the HTTP engine here.

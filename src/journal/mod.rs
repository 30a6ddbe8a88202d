//! What must survive a crash, in SQLite: generations, overlay, audit.

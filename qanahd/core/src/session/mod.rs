//! The life of a session with one peer, as a machine without I/O.

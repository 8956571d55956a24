//! The allowed IPs of all peers: longest prefix first.

//! The Qanah daemon: WireGuard configurations over WebRTC data channels.

fn main() {}

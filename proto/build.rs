//! Compiles the control API without `protoc`.

fn main() {}

//! The Qanah command line.

fn main() {}

//! The Qanah command line.

fn main() -> std::process::ExitCode {
    qanahctl::main()
}

//! Compiles the control API without `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const FILE: &str = "qanah/control/v1/control.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={FILE}");
    let mut compiler = protox::Compiler::new(["."])?;
    // The comments of the .proto become the documentation of the generated types.
    compiler.include_source_info(true).include_imports(true).open_file(FILE)?;

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("control.fds"), compiler.encode_file_descriptor_set())?;

    // Maps are ordered, so that output made from them is too.
    tonic_prost_build::configure()
        .btree_map(".qanah.control.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

//! Makes the types of the schema; needs no protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let schema = protox::compile(["instep/v1/sync.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).compile_fds(schema)?;
    Ok(())
}

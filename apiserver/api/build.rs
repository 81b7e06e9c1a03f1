//! Compiles the API's protocol buffers, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["landbridge/admin/v1/admin.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // What clusterctl prints with `-o json`.
        .type_attribute(".", "#[derive(serde::Serialize)] #[serde(rename_all = \"camelCase\")]")
        .compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}

//! Generates the messages, servers and clients of `proto/`; no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["streams.proto", "serverfeatures.proto", "gossip.proto", "persistent.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .emit_rerun_if_changed(false)
        .include_file("proto.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

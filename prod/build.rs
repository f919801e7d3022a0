//! Generates the messages, servers and clients of `proto/`; no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["streams.proto", "serverfeatures.proto", "gossip.proto", "persistent.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Written by hand, with prost's own encoding of fields: see there.
        .extern_path(
            ".event_store.client.streams.AppendReq.ProposedMessage",
            "crate::api::grpc::proposed::Proposed",
        )
        .emit_rerun_if_changed(false)
        .include_file("proto.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

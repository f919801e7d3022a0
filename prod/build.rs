//! Compiles the wire protocol, without a compiler of its own on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["streams.proto", "serverfeatures.proto", "gossip.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .include_file("proto.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

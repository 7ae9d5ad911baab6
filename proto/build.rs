//! Compiles the protocol files without an installed `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 5] = [
    "cloud/v1/streams.proto",
    "server/v1/server.proto",
    "node/v1/link.proto",
    "hubble/observer.proto",
    "envoy/als.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=cloud");
    println!("cargo::rerun-if-changed=server");
    println!("cargo::rerun-if-changed=node");
    println!("cargo::rerun-if-changed=hubble");
    println!("cargo::rerun-if-changed=envoy");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Equal objects must give equal bytes, so maps are ordered.
        .btree_map(".")
        .bytes(".node.v1")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

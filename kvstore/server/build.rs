//! Compiles the protocol buffers, without protoc.

use std::error::Error;
use std::path::PathBuf;

/// The API, below `proto/`.
const API: &[&str] = &[
    "etcd/etcdserverpb/auth.proto",
    "etcd/etcdserverpb/cluster.proto",
    "etcd/etcdserverpb/kv.proto",
    "etcd/etcdserverpb/lease.proto",
    "etcd/etcdserverpb/maintenance.proto",
    "etcd/etcdserverpb/watch.proto",
    "etcd/v3electionpb.proto",
    "etcd/v3lockpb.proto",
];

/// What is on disk and between members, below `proto/`.
const OWN: &[&str] = &[
    "landbridge/raft/v1/auth.proto",
    "landbridge/raft/v1/command.proto",
    "landbridge/raft/v1/log.proto",
    "landbridge/raft/v1/peer.proto",
    "landbridge/raft/v1/snapshot.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(API)?;
    // The API's messages describe themselves: to clients that ask, and to the gateway, which turns JSON into them.
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(folder.join("api.descriptors"), compiler.encode_file_descriptor_set())?;
    let files = compiler.include_source_info(true).open_files(OWN)?.file_descriptor_set();
    // Keys and values are slices of the message they came in, not copies.
    tonic_prost_build::configure()
        .bytes(".")
        // The store holds keys and values as they are sent.
        .extern_path(".mvccpb.KeyValue", "crate::grpc::KeyValueMessage")
        .compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}

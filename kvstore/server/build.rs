//! Compiles the protocol buffers, without protoc.

use std::error::Error;

/// Below `proto/`.
const FILES: &[&str] = &[
    "etcd/etcdserverpb/auth.proto",
    "etcd/etcdserverpb/cluster.proto",
    "etcd/etcdserverpb/kv.proto",
    "etcd/etcdserverpb/lease.proto",
    "etcd/etcdserverpb/maintenance.proto",
    "etcd/etcdserverpb/watch.proto",
    "landbridge/raft/v1/command.proto",
    "landbridge/raft/v1/log.proto",
    "landbridge/raft/v1/snapshot.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(FILES, ["proto"])?;
    // Keys and values are slices of the message they came in, not copies.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}

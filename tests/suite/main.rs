//! Tests that need more than one crate. One binary, so that everything is linked once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod datapath;
mod first_packets;
mod mesh;
mod real_etcd;

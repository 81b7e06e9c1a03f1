//! Nodes with their agents, as they run: programs in the kernel, a real etcd, pods wired by the CNI plugin.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cni;
mod leftovers;
mod mesh;
mod ping_pong;
mod sockets;
mod world;

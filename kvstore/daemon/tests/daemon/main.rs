//! The binary, as its users run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod etcdctl;
mod greedy;
mod half_open;
mod idle;
mod program;
mod snapshot;
mod start;
mod wire;

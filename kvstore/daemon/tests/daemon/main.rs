//! The binary, as its users run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod etcdctl;
mod idle;
mod program;
mod snapshot;
mod start;

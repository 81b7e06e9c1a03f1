//! Loads, attaches and pins the kernel side and reads its maps: the only crate that calls aya.
//!
//! The object travels inside of the crate, compiled by its build script from `bpf/programs`. Interfaces are named
//! as the calling thread sees them, so attach from within the node's network namespace.

mod traffic;

pub use landbridge_bpf_maps as maps;
pub use traffic::{LoadError, TrafficCounter};

/// The compiled kernel side, aligned as the ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/landbridge.o"));

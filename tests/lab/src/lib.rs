//! Clusters on one Linux machine: every host is a network namespace, every cable a veth pair.
//!
//! ```text
//!   pod a1p1 ─┐
//!   pod a1p2 ─┴ node a1 ── a1 ┐
//!                             br0  switch a ── wan ─┐
//!   pod a2p1 ─┬ node a2 ── a2 ┘                     │
//!   pod a2p2 ─┘                                  router wan
//!                                                   │
//!   …           node b1 ── b1   switch b ── wan ────┘
//! ```
//!
//! Tests, benches and `clusterctl demo` share this crate. It knows no other crate of the project and starts
//! programs by their path. [`LabSpec`] says what to build, [`Lab`] is what was built, [`Host`] runs programs,
//! [`Link`] cuts and degrades a cable.
//!
//! Invariants:
//! - Everything outside of a namespace carries the lab's name, and its record is written first and deleted
//!   last, so that [`remove_stale`] finds whatever a crash left.
//! - An owned lab is gone when its [`Lab`] is dropped or the process gets SIGINT, SIGTERM or SIGHUP.
//! - A link that nothing is set on has no relay: benches measure the kernel's own path.
//! - The calling thread never changes its namespace.

mod address;
mod capability;
mod capture;
mod cgroup;
mod deployment;
mod error;
mod file_lock;
mod host;
mod keeper;
mod lab;
mod link;
mod mounts;
mod name;
mod namespace;
mod netlink;
mod packet_socket;
mod ping;
mod process;
mod record;
mod relay;
mod removal;
pub mod requirement;
mod signal;
mod spec;
mod topology;
mod traces;
mod wiring;

pub use address::{ClusterAddresses, NodeAddresses, Prefix};
pub use capability::MissingCapability;
pub use capture::{Capture, CaptureSummary};
pub use deployment::{Deployment, DeploymentError, Programs, RunningPod};
pub use error::LabError;
pub use host::Host;
pub use lab::{Lab, LabState, LabSummary, list};
pub use link::Link;
pub use name::{InvalidLabName, LabName};
pub use ping::PingSummary;
pub use process::Process;
pub use relay::channel::{ChannelCounters, Impairment, Share};
pub use relay::control::RelayCounters;
pub use relay::{Direction, run_relay_process};
pub use removal::{remove, remove_stale};
pub use signal::{is_ending, wait_for_end};
pub use spec::{ClusterSpec, LabSpec, Lifetime, PodWiring};
pub use topology::Role;
pub use traces::traces;

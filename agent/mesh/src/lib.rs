//! What a node's agent decides: records of many clusters in, the maps of one node out.
//!
//! ```text
//! records, key by key ─► Mesh ─ desired() ─► Desired ─ writes(actual) ─► MapWrite, MapWrite, …
//! this node's pods ────►  ▲
//!                         │ Reachability
//! answers to probes ──► Prober ─ due(now) ─► Probe, Probe, …
//! ```
//!
//! - Pure: no I/O, no clock, no randomness. Time is an argument of the [`Prober`]; nothing else knows of it.
//! - What is desired depends on the records that are there, not on the order in which they came. Two things are
//!   remembered, so that maps do not change without need: the numbers of nodes and of policy sets.
//! - Other clusters are not trusted. A record of theirs takes no address that belongs to this cluster, and none that
//!   belongs to a cluster which comes before theirs by name. What is refused is counted and shown: [`Mesh::problems`].
//! - Nothing is desired before the feeds were complete once: half of the policies would allow what the other half denies.
//!   For the same reason a policy that cannot be read closes the pods that it may be about.
//! - [`Desired::writes`] keeps packets flowing and denied ones out at every step between two states.

mod desired;
mod health;
mod ipcache;
mod mesh;
mod node_numbers;
mod policy;
mod problem;
mod ranges;
mod records;
mod service;
mod shares;
mod stale;
mod topology;

pub use desired::{Desired, MapWrite, ServiceSpec};
pub use health::{HealthOptions, Path, Probe, Prober, Reachability};
pub use mesh::{Local, LocalEndpoint, Mesh};
pub use problem::{Problem, Refused, Unsupported};
pub use service::{BackendCount, ServiceSummary};
pub use topology::{AddressOwner, MeshNode, NodeRef};

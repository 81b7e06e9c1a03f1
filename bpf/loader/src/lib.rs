//! Loads, attaches and pins the kernel side and reads and writes its maps: the only crate that calls aya.
//!
//! ```text
//!  <pins>/v<schema>/ ├─ maps/IPCACHE, …               what the programs know, taken over by the next process
//!                    ├─ cgroup/<id>/connect4, …       a service address becomes a backend
//!                    ├─ overlay/lb_vxlan@7/…          from and to other nodes
//!                    ├─ uplink/eth0@2/…               without a tunnel: to other nodes, to and from the world
//!                    └─ endpoints/lxc1@9/…            from and to a pod
//! ```
//!
//! Invariants:
//! - Everything is pinned: programs go on when a [`Datapath`] is dropped or its process ends.
//! - A hook is never without its program while another process takes over: links are pointed at the new programs.
//! - Pins of an older layout of the maps go on until the new maps are filled ([`Datapath::take_over`]); those of a newer one
//!   are refused.
//! - A pinned map of another shape is never used, since the kernel would read it as what it is not.
//! - A link's folder is named after what it is attached to, number included, so that an interface or cgroup that was
//!   made anew under its old name gets links of its own.
//!
//! The object travels inside of the crate, compiled by its build script from `bpf/programs`. Interfaces are named
//! as the calling thread sees them, so open and attach from within the node's network namespace.

mod batch;
mod datapath;
mod error;
mod events;
mod filters;
mod generation;
mod hooks;
mod link;
mod nodes;
mod object;
mod places;
mod probes;
mod runs;
mod services;
mod shape;
mod sizes;
mod sockets;
mod steps;
mod syscall;
mod table;
mod tables;
#[cfg(feature = "trial")]
mod trial;
mod versions;

pub use datapath::{Datapath, DatapathOptions};
pub use error::{DatapathError, MapError};
pub use events::{Events, Interest, LostEvents};
pub use hooks::Attachment;
pub use landbridge_bpf_maps as maps;
pub use nodes::Nodes;
#[cfg(feature = "trial")]
pub use object::Build;
pub use probes::{Feature, Kernel};
pub use services::Services;
pub use shape::MapShape;
pub use sizes::MapSizes;
pub use sockets::ConnectedSockets;
pub use table::Table;
pub use tables::Tables;
#[cfg(feature = "trial")]
pub use trial::{Scarce, Trial, TrialAction, TrialPacket, TrialResult};

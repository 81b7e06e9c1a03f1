//! Keys and values of the BPF maps: the contract between the kernel side and user space.
//!
//! ```text
//! connect ─► SERVICES ─► AFFINITY, MAGLEV ─► BACKENDS      sockets: a service address becomes a backend
//! packet ──► SERVICES ─► the same, once ─► SERVICE_FLOWS   packets that no socket program translated, and their answers
//! packet ──► KNOWN_FLOWS (judged a moment ago, GENERATION?) ─► there it goes
//!   │ not yet
//! packet ──► ENDPOINTS (whose pod?) ─► IPCACHE, CIDRS (who is the other side?) ─► POLICY, CONNECTIONS (may it?)
//!   └─ FRAGMENTS (whose ports?)            └─► NODES (where to?)                  METRICS (what became of it)
//! to and from the world ─► MASQUERADE      whose connection, under which port of the node?
//!                                                         EVENTS (told, while someone listens)
//! ```
//!
//! Every type is `repr(C)` without padding, and its size is asserted: padding would become part of a key. Addresses and
//! ports are in network byte order, all other numbers in the machine's.
#![no_std]

mod address;
mod connection;
mod endpoint;
mod event;
mod fragment;
mod ipcache;
mod known_flow;
mod masquerade;
mod metrics;
mod node_config;
#[cfg(feature = "trial")]
mod planted;
mod policy;
mod reason;
mod service;
mod service_flow;
mod step;

pub use address::{Address, IPV4_PREFIX_BITS};
pub use connection::{ConnectionEntry, ConnectionKey};
pub use endpoint::Endpoint;
pub use event::{Event, EventBudget, EventControl, EventKind, TracePoint};
pub use fragment::{FragmentKey, FragmentPorts};
pub use ipcache::{CidrKey, IpcacheEntry, NODES_LEN, NodeEntry, NodeNumber, identity};
pub use known_flow::{FlowKey, GENERATION_LEN, Hook, KnownFlow, Way};
pub use masquerade::{MASQUERADE_PORTS, MasqueradeEntry, MasqueradeKey};
pub use metrics::{Direction, METRICS_LEN, TrafficCount, metrics_index};
pub use node_config::NodeConfig;
#[cfg(feature = "trial")]
pub use planted::Planted;
pub use policy::{KeyForms, PeerKind, PolicyEntry, PolicyKey, PolicySet, PolicyVerdict};
pub use reason::Reason;
pub use service::{
    AffinityEntry, AffinityKey, Algorithm, BACKENDS_LEN, Backend, MAGLEV_LEN, SLOTS_PER_GROUP, ServiceEntry,
    ServiceKey, ServiceSettings, SlotGroup, SocketService, UdpPeerKey,
};
pub use service_flow::{ServiceFlow, ServiceFlowKey};
pub use step::Step;

/// Version of the maps' layout, part of the folder that they are pinned in: `<bpffs>/landbridge/v<schema>/`.
/// Counts up whenever a type of this crate changes.
pub const SCHEMA: u32 = 5;

/// Declares types whose bytes are their value, with the size the other side relies on.
macro_rules! map_element {
    ($($element:ty => $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$element>() == $size);
        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "this is how aya is told that a type is plain bytes")]
        // SAFETY: the type is `repr(C)` or `repr(transparent)`, has only number fields and, by its size, no padding.
        unsafe impl aya::Pod for $element {}
    )+};
}

map_element! {
    Address => 16,
    AffinityEntry => 32,
    AffinityKey => 24,
    Backend => 24,
    CidrKey => 20,
    ConnectionEntry => 16,
    ConnectionKey => 40,
    Endpoint => 36,
    Event => 64,
    EventBudget => 32,
    EventControl => 16,
    FlowKey => 44,
    FragmentKey => 40,
    FragmentPorts => 8,
    IpcacheEntry => 8,
    KnownFlow => 56,
    MasqueradeEntry => 20,
    MasqueradeKey => 40,
    NodeConfig => 128,
    NodeEntry => 20,
    PolicyEntry => 8,
    PolicyKey => 16,
    ServiceEntry => 32,
    ServiceFlow => 24,
    ServiceFlowKey => 40,
    ServiceKey => 20,
    SlotGroup => 64,
    SocketService => 36,
    TrafficCount => 16,
    UdpPeerKey => 32,
}

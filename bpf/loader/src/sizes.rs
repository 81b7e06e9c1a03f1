//! How large the maps are.

use landbridge_bpf_maps::{BACKENDS_LEN, MAGLEV_LEN, NODES_LEN};

/// How many entries each map may have. A node's maps keep their sizes until its pins are deleted.
///
/// Hashes and tries take memory as they fill; arrays, `affinity`, `connections`, `known_flows`, `fragments`, `masquerade`, `service_flows`,
/// `sockets`, `udp_peers` and `events` take it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Addresses of pods and nodes of the whole mesh.
    pub ipcache: u32,
    /// Prefixes of the whole mesh.
    pub cidrs: u32,
    /// Pods of this node.
    pub endpoints: u32,
    /// Rules of all policy sets.
    pub policy: u32,
    /// Nodes of the whole mesh, and one. 24 bytes each.
    pub nodes: u32,
    /// Service ports.
    pub services: u32,
    /// Backends of all services, and what is between their runs. 24 bytes each.
    pub backends: u32,
    /// Tables of services whose backends have unequal shares, or are found by Maglev hashing: groups of 32 slots, and what is
    /// between them. A service with 3 backends takes 16. 64 bytes each.
    pub tables: u32,
    /// Clients that are promised the same backend again; the one that was silent for the longest time makes room. About
    /// 110 bytes each.
    pub affinity: u32,
    /// Connections of this node's pods; the one that was silent for the longest time makes room. About 110 bytes each.
    pub connections: u32,
    /// Flows of this node's pods that are not judged packet by packet, two for each connection in use; likewise. About 180 bytes
    /// each.
    pub known_flows: u32,
    /// Datagrams in pieces that are under way, likewise. About 110 bytes each.
    pub fragments: u32,
    /// Twice the connections to the world under the node's address, likewise. About 120 bytes each.
    pub masquerade: u32,
    /// Twice the connections to services that no socket program translated, likewise. About 120 bytes each.
    pub service_flows: u32,
    /// Sockets that are connected by the name of a service, and not closed yet. Where there are more, the backend is shown
    /// as the peer of the one that was looked at the longest time ago. About 110 bytes each.
    pub sockets: u32,
    /// Backends that sockets without a connection send to, likewise. About 120 bytes each.
    pub udp_peers: u32,
    /// Bytes of the ring of events, of 72 each: a power of two, and whole pages.
    pub events: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            ipcache: 1 << 19,
            cidrs: 1 << 16,
            endpoints: 1 << 12,
            policy: 1 << 18,
            nodes: NODES_LEN,
            services: 1 << 16,
            backends: BACKENDS_LEN,
            tables: MAGLEV_LEN,
            affinity: 1 << 16,
            connections: 1 << 18,
            known_flows: 1 << 17,
            fragments: 1 << 13,
            masquerade: 1 << 17,
            service_flows: 1 << 16,
            sockets: 1 << 17,
            udp_peers: 1 << 16,
            events: 1 << 22,
        }
    }
}

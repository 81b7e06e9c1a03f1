//! What each map is: the kernel takes any pinned map for the one that a program wants, whatever it is.

use std::fmt;
use std::path::Path;

use aya::maps::{MapInfo, MapType};
use landbridge_bpf_maps::{
    Address, AffinityEntry, AffinityKey, Backend, CidrKey, ConnectionEntry, ConnectionKey, Endpoint,
    EventBudget, EventControl, FlowKey, FragmentKey, FragmentPorts, GENERATION_LEN, IpcacheEntry, KnownFlow,
    METRICS_LEN, MasqueradeEntry, MasqueradeKey, NodeEntry, PolicyEntry, PolicyKey, ServiceEntry,
    ServiceFlow, ServiceFlowKey, ServiceKey, SlotGroup, SocketService, Step, TrafficCount, UdpPeerKey,
};

use crate::error::{DatapathError, MapError};
use crate::sizes::MapSizes;

pub(crate) const IPCACHE: &str = "IPCACHE";
pub(crate) const CIDRS: &str = "CIDRS";
pub(crate) const ENDPOINTS: &str = "ENDPOINTS";
pub(crate) const POLICY: &str = "POLICY";
pub(crate) const NODES: &str = "NODES";
pub(crate) const SERVICES: &str = "SERVICES";
pub(crate) const BACKENDS: &str = "BACKENDS";
pub(crate) const MAGLEV: &str = "MAGLEV";
pub(crate) const METRICS: &str = "METRICS";
pub(crate) const EVENTS: &str = "EVENTS";
pub(crate) const EVENT_CONTROL: &str = "EVENT_CONTROL";
pub(crate) const EVENT_BUDGET: &str = "EVENT_BUDGET";
pub(crate) const STEPS: &str = "STEPS";
const AFFINITY: &str = "AFFINITY";
pub(crate) const CONNECTIONS: &str = "CONNECTIONS";
pub(crate) const KNOWN_FLOWS: &str = "KNOWN_FLOWS";
pub(crate) const GENERATION: &str = "GENERATION";
pub(crate) const FRAGMENTS: &str = "FRAGMENTS";
pub(crate) const MASQUERADE: &str = "MASQUERADE";
pub(crate) const SERVICE_FLOWS: &str = "SERVICE_FLOWS";
pub(crate) const UDP_PEERS: &str = "UDP_PEERS";
pub(crate) const SOCKET_SERVICE: &str = "SOCKET_SERVICE";

/// What has to be equal in two maps before one can stand for the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapShape {
    /// The kind.
    pub kind: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it may have.
    pub max_entries: u32,
}

impl MapShape {
    fn of<K, V>(kind: MapType, max_entries: u32) -> Self {
        let size = |bytes: usize| u32::try_from(bytes).expect("map elements are small");
        Self { kind, key_size: size(size_of::<K>()), value_size: size(size_of::<V>()), max_entries }
    }

    pub(crate) fn read(info: &MapInfo) -> Result<Self, aya::maps::MapError> {
        Ok(Self {
            kind: info.map_type()?,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
        })
    }
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key_size, value_size, max_entries } = self;
        write!(
            f,
            "{kind:?} map of {max_entries} entries with {key_size}-byte keys and {value_size}-byte values"
        )
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const STEPS_LEN: u32 = Step::ALL.len() as u32;

/// Every map of the programs, with its shape.
pub(crate) fn all(sizes: &MapSizes) -> [(&'static str, MapShape); 22] {
    use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray, ProgramArray, RingBuf};
    [
        (IPCACHE, MapShape::of::<Address, IpcacheEntry>(Hash, sizes.ipcache)),
        (CIDRS, MapShape::of::<CidrKey, IpcacheEntry>(LpmTrie, sizes.cidrs)),
        (ENDPOINTS, MapShape::of::<Address, Endpoint>(Hash, sizes.endpoints)),
        (POLICY, MapShape::of::<PolicyKey, PolicyEntry>(Hash, sizes.policy)),
        (NODES, MapShape::of::<u32, NodeEntry>(Array, sizes.nodes)),
        (SERVICES, MapShape::of::<ServiceKey, ServiceEntry>(Hash, sizes.services)),
        (BACKENDS, MapShape::of::<u32, Backend>(Array, sizes.backends)),
        (MAGLEV, MapShape::of::<u32, SlotGroup>(Array, sizes.tables)),
        (AFFINITY, MapShape::of::<AffinityKey, AffinityEntry>(LruHash, sizes.affinity)),
        (CONNECTIONS, MapShape::of::<ConnectionKey, ConnectionEntry>(LruHash, sizes.connections)),
        (KNOWN_FLOWS, MapShape::of::<FlowKey, KnownFlow>(LruHash, sizes.known_flows)),
        (GENERATION, MapShape::of::<u32, u64>(Array, GENERATION_LEN)),
        (FRAGMENTS, MapShape::of::<FragmentKey, FragmentPorts>(LruHash, sizes.fragments)),
        (MASQUERADE, MapShape::of::<MasqueradeKey, MasqueradeEntry>(LruHash, sizes.masquerade)),
        (SERVICE_FLOWS, MapShape::of::<ServiceFlowKey, ServiceFlow>(LruHash, sizes.service_flows)),
        (UDP_PEERS, MapShape::of::<UdpPeerKey, SocketService>(LruHash, sizes.udp_peers)),
        (SOCKET_SERVICE, MapShape::of::<u64, SocketService>(LruHash, sizes.sockets)),
        (STEPS, MapShape::of::<u32, u32>(ProgramArray, STEPS_LEN)),
        (METRICS, MapShape::of::<u32, TrafficCount>(PerCpuArray, METRICS_LEN)),
        (EVENTS, MapShape::of::<(), ()>(RingBuf, sizes.events)),
        (EVENT_CONTROL, MapShape::of::<u32, EventControl>(Array, 1)),
        (EVENT_BUDGET, MapShape::of::<u32, EventBudget>(PerCpuArray, 1)),
    ]
}

/// Compares what is pinned at `path` with what is wanted there; a pin that does not exist is made later.
pub(crate) fn compare(name: &'static str, path: &Path, wanted: MapShape) -> Result<(), DatapathError> {
    if !path.exists() {
        return Ok(());
    }
    let found =
        MapInfo::from_pin(path).and_then(|info| MapShape::read(&info)).map_err(MapError::reading(name))?;
    if found == wanted {
        return Ok(());
    }
    Err(DatapathError::Shape { path: path.to_owned(), found, wanted })
}

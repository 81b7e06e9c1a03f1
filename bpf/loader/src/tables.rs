//! The maps of the programs as typed handles.

use std::fmt;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray};
use landbridge_bpf_maps::{
    Address, CidrKey, ConnectionEntry, ConnectionKey, Direction, Endpoint, FragmentKey, FragmentPorts,
    IpcacheEntry, METRICS_LEN, NodeEntry, PolicyEntry, PolicyKey, Reason, ServiceFlow, ServiceFlowKey,
    TrafficCount, metrics_index,
};

use crate::error::{DatapathError, MapError};
use crate::generation::Generation;
use crate::nodes::Nodes;
use crate::services::{ServiceMaps, Services};
use crate::shape::{
    BACKENDS, CIDRS, CONNECTIONS, ENDPOINTS, FRAGMENTS, GENERATION, IPCACHE, MAGLEV, METRICS, NODES, POLICY,
    SERVICE_FLOWS, SERVICES,
};
use crate::sizes::MapSizes;
use crate::table::{OwnedTable, Table};

/// The maps of one set of programs: what they know, and what they count.
pub struct Tables {
    ipcache: OwnedTable<Address, IpcacheEntry>,
    cidrs: OwnedTable<CidrKey, IpcacheEntry>,
    endpoints: OwnedTable<Address, Endpoint>,
    policy: OwnedTable<PolicyKey, PolicyEntry>,
    connections: OwnedTable<ConnectionKey, ConnectionEntry>,
    fragments: OwnedTable<FragmentKey, FragmentPorts>,
    service_flows: OwnedTable<ServiceFlowKey, ServiceFlow>,
    nodes: Array<MapData, NodeEntry>,
    generation: Generation,
    services: ServiceMaps,
    metrics: PerCpuArray<MapData, TrafficCount>,
}

impl Tables {
    /// Takes the maps out of an object. Returns nothing if services contradict each other.
    pub(crate) fn take(object: &mut Ebpf, sizes: &MapSizes) -> Result<Option<Self>, DatapathError> {
        let services = OwnedTable::new(SERVICES, sizes.services, take(object, SERVICES)?)?;
        let backends = Array::try_from(take(object, BACKENDS)?).map_err(MapError::reading(BACKENDS))?;
        let slots = Array::try_from(take(object, MAGLEV)?).map_err(MapError::reading(MAGLEV))?;
        let Some(services) = ServiceMaps::new(services, backends, slots)? else { return Ok(None) };
        Ok(Some(Self {
            ipcache: OwnedTable::new(IPCACHE, sizes.ipcache, take(object, IPCACHE)?)?,
            cidrs: OwnedTable::new(CIDRS, sizes.cidrs, take(object, CIDRS)?)?,
            endpoints: OwnedTable::new(ENDPOINTS, sizes.endpoints, take(object, ENDPOINTS)?)?,
            policy: OwnedTable::new(POLICY, sizes.policy, take(object, POLICY)?)?,
            connections: OwnedTable::new(CONNECTIONS, sizes.connections, take(object, CONNECTIONS)?)?,
            fragments: OwnedTable::new(FRAGMENTS, sizes.fragments, take(object, FRAGMENTS)?)?,
            service_flows: OwnedTable::new(SERVICE_FLOWS, sizes.service_flows, take(object, SERVICE_FLOWS)?)?,
            nodes: Array::try_from(take(object, NODES)?).map_err(MapError::reading(NODES))?,
            generation: Generation::new(
                Array::try_from(take(object, GENERATION)?).map_err(MapError::reading(GENERATION))?,
            )?,
            services,
            metrics: PerCpuArray::try_from(take(object, METRICS)?).map_err(MapError::reading(METRICS))?,
        }))
    }

    /// Who addresses belong to.
    pub fn ipcache(&mut self) -> Table<'_, Address, IpcacheEntry> {
        self.ipcache.lend(&mut self.generation)
    }

    /// Who prefixes belong to, for addresses without an entry of their own.
    pub fn cidrs(&mut self) -> Table<'_, CidrKey, IpcacheEntry> {
        self.cidrs.lend(&mut self.generation)
    }

    /// The pods of this node.
    pub fn endpoints(&mut self) -> Table<'_, Address, Endpoint> {
        self.endpoints.lend(&mut self.generation)
    }

    /// The rules of policies.
    pub fn policy(&mut self) -> Table<'_, PolicyKey, PolicyEntry> {
        self.policy.lend(&mut self.generation)
    }

    /// The connections that the programs remember. They write to it at any time.
    pub fn connections(&mut self) -> Table<'_, ConnectionKey, ConnectionEntry> {
        self.connections.lend(&mut self.generation)
    }

    /// The datagrams in pieces that the programs remember. They write to it at any time.
    pub fn fragments(&mut self) -> Table<'_, FragmentKey, FragmentPorts> {
        self.fragments.lend(&mut self.generation)
    }

    /// The connections to services that no socket program translated, as the programs remember them. They write to it at
    /// any time.
    pub fn service_flows(&mut self) -> Table<'_, ServiceFlowKey, ServiceFlow> {
        self.service_flows.lend(&mut self.generation)
    }

    /// The nodes of the mesh.
    pub fn nodes(&mut self) -> Nodes<'_> {
        Nodes { map: &mut self.nodes, generation: &mut self.generation }
    }

    /// Services and their backends.
    pub fn services(&mut self) -> Services<'_> {
        Services { maps: &mut self.services }
    }

    /// How many packets ended so since the maps were made, over all CPUs.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn count(&self, reason: Reason, direction: Direction) -> Result<TrafficCount, DatapathError> {
        let index = metrics_index(reason, direction);
        debug_assert!(index < METRICS_LEN);
        let by_cpu = self.metrics.get(&index, 0).map_err(MapError::reading(METRICS))?;
        Ok(by_cpu.iter().fold(TrafficCount::default(), |sum, count| TrafficCount {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        }))
    }

    /// What became of packets since the maps were made, over all CPUs; what never happened is left out.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn counts(&self) -> Result<Vec<(Reason, Direction, TrafficCount)>, DatapathError> {
        let mut counts = Vec::new();
        for reason in (0..=u8::MAX).map(Reason) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let sum = self.count(reason, direction)?;
                if sum != TrafficCount::default() {
                    counts.push((reason, direction, sum));
                }
            }
        }
        Ok(counts)
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

pub(crate) fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    object.take_map(name).ok_or(DatapathError::Missing(name))
}

//! A node's datapath: its programs in place, its maps at hand.

use std::fmt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use landbridge_bpf_maps::{
    Address, CidrKey, Direction, Endpoint, IpcacheEntry, METRICS_LEN, NodeConfig, NodeEntry, PolicyEntry,
    PolicyKey, Reason, SCHEMA, TrafficCount, metrics_index,
};

use crate::OBJECT;
use crate::error::{DatapathError, MapError};
use crate::hooks::{self, ENDPOINT_PROGRAMS, OVERLAY_PROGRAMS};
use crate::nodes::Nodes;
use crate::services::{ServiceMaps, Services};
use crate::shape::{self, BACKENDS, CIDRS, ENDPOINTS, IPCACHE, MAGLEV, METRICS, NODES, POLICY, SERVICES};
use crate::sizes::MapSizes;
use crate::table::{OwnedTable, Table};

/// The constants of the programs.
const CONFIG: &str = "CONFIG";

/// Where a datapath goes.
#[derive(Clone, Debug)]
pub struct DatapathOptions {
    /// Folder on a bpf filesystem for the pins; the maps' version is added.
    pub pins: PathBuf,
    /// Folder of the cgroup, version 2, whose sockets are to reach services: the root on a real node.
    pub cgroup: PathBuf,
    /// The tunnel interface (VXLAN with `external`), as the calling thread sees it.
    pub overlay_interface: String,
    /// What the programs know from the start; `overlay_interface` is filled in.
    pub config: NodeConfig,
    /// How large the maps are.
    pub sizes: MapSizes,
}

/// The programs of a node and their maps.
///
/// Everything is pinned: it goes on when this is dropped or the process ends, until [`Datapath::remove`].
pub struct Datapath {
    object: Ebpf,
    /// The folder of this version's pins.
    pins: PathBuf,
    ipcache: OwnedTable<Address, IpcacheEntry>,
    cidrs: OwnedTable<CidrKey, IpcacheEntry>,
    endpoints: OwnedTable<Address, Endpoint>,
    policy: OwnedTable<PolicyKey, PolicyEntry>,
    nodes: Array<MapData, NodeEntry>,
    services: ServiceMaps,
    metrics: PerCpuArray<MapData, TrafficCount>,
}

impl Datapath {
    /// Loads the programs and attaches them to the cgroup and to the tunnel interface. Where a process before this one
    /// did so, its maps are taken over as they are, and its programs are replaced one by one, those of endpoints too.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing is attached or replaced unless all programs are loaded.
    pub fn open(options: &DatapathOptions) -> Result<Self, DatapathError> {
        let config =
            NodeConfig { overlay_interface: hooks::index_of(&options.overlay_interface)?, ..options.config };
        let pins = version_folder(&options.pins);
        let mut object = load_maps(&pins.join("maps"), config, &options.sizes)?;
        hooks::load_programs(&mut object)?;
        let sizes = &options.sizes;
        let services = OwnedTable::new(SERVICES, sizes.services, take(&mut object, SERVICES)?)?;
        let backends = Array::try_from(take(&mut object, BACKENDS)?).map_err(MapError::reading(BACKENDS))?;
        let tables = Array::try_from(take(&mut object, MAGLEV)?).map_err(MapError::reading(MAGLEV))?;
        let services = ServiceMaps::new(services, backends, tables)?
            .ok_or_else(|| DatapathError::Services(options.pins.clone()))?;
        let mut datapath = Self {
            ipcache: OwnedTable::new(IPCACHE, sizes.ipcache, take(&mut object, IPCACHE)?)?,
            cidrs: OwnedTable::new(CIDRS, sizes.cidrs, take(&mut object, CIDRS)?)?,
            endpoints: OwnedTable::new(ENDPOINTS, sizes.endpoints, take(&mut object, ENDPOINTS)?)?,
            policy: OwnedTable::new(POLICY, sizes.policy, take(&mut object, POLICY)?)?,
            nodes: Array::try_from(take(&mut object, NODES)?).map_err(MapError::reading(NODES))?,
            services,
            metrics: PerCpuArray::try_from(take(&mut object, METRICS)?)
                .map_err(MapError::reading(METRICS))?,
            object,
            pins,
        };
        datapath.attach(options)?;
        Ok(datapath)
    }

    fn attach(&mut self, options: &DatapathOptions) -> Result<(), DatapathError> {
        let endpoints = self.endpoint_links();
        hooks::refresh(&mut self.object, &endpoints, &ENDPOINT_PROGRAMS)?;
        let overlay = self.pins.join("overlay");
        let current = hooks::attach_interface(
            &mut self.object,
            &overlay,
            &options.overlay_interface,
            &OVERLAY_PROGRAMS,
        )?;
        hooks::remove_others(&overlay, &current)?;
        hooks::attach_cgroup(&mut self.object, &self.pins.join("cgroup"), &options.cgroup)
    }

    /// Attaches the programs of a pod to the node's side of its interface. Does nothing if they are there.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`], [`DatapathError::Attach`], or what has to do with pins; what the call attached
    /// until then is detached again.
    pub fn attach_endpoint(&mut self, interface: &str) -> Result<(), DatapathError> {
        let links = self.endpoint_links();
        hooks::attach_interface(&mut self.object, &links, interface, &ENDPOINT_PROGRAMS).map(drop)
    }

    /// Detaches the programs of a pod. Does nothing if there are none, or if the interface is gone.
    ///
    /// # Errors
    /// [`DatapathError::Folder`].
    pub fn detach_endpoint(&mut self, interface: &str) -> Result<(), DatapathError> {
        let folders = hooks::folders(&self.endpoint_links())?;
        let of_interface = folders
            .iter()
            .filter(|folder| hooks::interface_of(folder).is_some_and(|(name, _)| name == interface));
        of_interface.into_iter().try_for_each(|folder| hooks::remove_folder(folder))
    }

    /// The interfaces with the programs of a pod, those that are gone left out.
    ///
    /// # Errors
    /// [`DatapathError::Folder`].
    pub fn attached_endpoints(&self) -> Result<Vec<String>, DatapathError> {
        let folders = hooks::folders(&self.endpoint_links())?;
        let whole = folders
            .iter()
            .filter(|folder| ENDPOINT_PROGRAMS.iter().all(|(name, _)| folder.join(name).exists()));
        let interfaces = whole.filter_map(|folder| hooks::interface_of(folder));
        let here = interfaces.filter(|(name, index)| hooks::index_of(name).is_ok_and(|now| now == *index));
        let mut names: Vec<String> = here.map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    /// Who addresses belong to.
    pub fn ipcache(&mut self) -> Table<'_, Address, IpcacheEntry> {
        self.ipcache.lend()
    }

    /// Who prefixes belong to, for addresses without an entry of their own.
    pub fn cidrs(&mut self) -> Table<'_, CidrKey, IpcacheEntry> {
        self.cidrs.lend()
    }

    /// The pods of this node.
    pub fn endpoints(&mut self) -> Table<'_, Address, Endpoint> {
        self.endpoints.lend()
    }

    /// The rules of policies.
    pub fn policy(&mut self) -> Table<'_, PolicyKey, PolicyEntry> {
        self.policy.lend()
    }

    /// The nodes of the mesh.
    pub fn nodes(&mut self) -> Nodes<'_> {
        Nodes { map: &mut self.nodes }
    }

    /// Services and their backends.
    pub fn services(&mut self) -> Services<'_> {
        Services { maps: &mut self.services }
    }

    /// What became of packets since the maps were made, over all CPUs; what never happened is left out.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn counts(&self) -> Result<Vec<(Reason, Direction, TrafficCount)>, DatapathError> {
        let mut counts = Vec::new();
        for reason in (0..=u8::MAX).map(Reason) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let index = metrics_index(reason, direction);
                debug_assert!(index < METRICS_LEN);
                let by_cpu = self.metrics.get(&index, 0).map_err(MapError::reading(METRICS))?;
                let sum = by_cpu.iter().fold(TrafficCount::default(), |sum, count| TrafficCount {
                    packets: sum.packets + count.packets,
                    bytes: sum.bytes + count.bytes,
                });
                if sum != TrafficCount::default() {
                    counts.push((reason, direction, sum));
                }
            }
        }
        Ok(counts)
    }

    /// How many instructions the verifier followed in each program: what may grow before it gives up.
    ///
    /// # Errors
    /// [`DatapathError::Load`] if the kernel does not say.
    pub fn verified_instructions(&self) -> Result<Vec<(String, u32)>, DatapathError> {
        let ask = |(name, program): (&str, &aya::programs::Program)| {
            let info =
                program.info().map_err(|source| DatapathError::Load { program: "of the object", source })?;
            Ok((name.to_owned(), info.verified_instruction_count().unwrap_or_default()))
        };
        self.object.programs().map(ask).collect()
    }

    /// Detaches every program and forgets every map that is pinned in `pins`, of all versions. Processes that have them
    /// open keep the maps.
    ///
    /// # Errors
    /// [`DatapathError::Folder`].
    pub fn remove(pins: &Path) -> Result<(), DatapathError> {
        hooks::folders(pins)?.iter().try_for_each(|folder| hooks::remove_folder(folder))
    }

    fn endpoint_links(&self) -> PathBuf {
        self.pins.join("endpoints")
    }
}

/// Its owner may be a task that moves between threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Datapath>();
};

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").field("pins", &self.pins).finish_non_exhaustive()
    }
}

fn version_folder(pins: &Path) -> PathBuf {
    pins.join(format!("v{SCHEMA}"))
}

/// Makes the maps, or opens those that are pinned in `folder` if they are what is wanted.
fn load_maps(folder: &Path, config: NodeConfig, sizes: &MapSizes) -> Result<Ebpf, DatapathError> {
    hooks::make_folder(folder)?;
    let config = [config];
    let mut loader = EbpfLoader::new();
    loader.override_global(CONFIG, &config[..], true);
    let maps = shape::all(sizes).map(|(name, shape)| (name, folder.join(name), shape));
    for (name, path, shape) in &maps {
        shape::compare(name, path, *shape)?;
        loader.map_pin_path(name, path);
        if shape.max_entries > 0 {
            loader.map_max_entries(name, shape.max_entries);
        }
    }
    let object = loader.load(OBJECT).map_err(DatapathError::Object)?;
    // What was made just now is of the object's making.
    maps.iter().try_for_each(|(name, path, shape)| shape::compare(name, path, *shape))?;
    Ok(object)
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    object.take_map(name).ok_or(DatapathError::Missing(name))
}

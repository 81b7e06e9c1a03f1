//! A lab from its start to its removal.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::address::ClusterAddresses;
use crate::error::{IoContext, LabError};
use crate::keeper::Keeper;
use crate::link::{LinkPlan, RelayProgram};
use crate::namespace::{self, Namespace};
use crate::record::{self, LabFolder, Ownership, Record, Registry};
use crate::relay::RelayThreads;
use crate::relay::engine::RelayPlace;
use crate::signal::{self, Remove};
use crate::topology::{HostPlan, Place, Topology};
use crate::{ClusterSpec, Host, LabName, LabSpec, Lifetime, Link, capability, cgroup, removal, wiring};

/// A lab that stands. An owned one is removed when this is dropped; a kept one stays.
pub struct Lab {
    spec: LabSpec,
    topology: Topology,
    namespaces: Vec<Namespace>,
    cgroup: PathBuf,
    folder: LabFolder,
    data: PathBuf,
    life: Life,
}

/// Who ends the lab, which decides where its relays run.
enum Life {
    Owned(Arc<OwnedLab>),
    Kept { relay_command: Vec<OsString> },
}

/// What a destructor or a signal, whichever comes first, removes.
struct OwnedLab {
    name: LabName,
    relays: RelayThreads,
    /// Held while the lab is built and while it is removed, so that neither meets the other half done.
    ownership: Mutex<Option<Ownership>>,
}

/// One line of [`list`].
#[derive(Debug, Serialize)]
pub struct LabSummary {
    /// The lab's name.
    pub name: LabName,
    /// The names of its clusters.
    pub clusters: Vec<String>,
    /// How many nodes all clusters have together.
    pub nodes: usize,
    /// How many pods all nodes have together.
    pub pods: usize,
    /// Who ends it.
    pub state: LabState,
}

/// Who ends a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LabState {
    /// Whoever removes it by its name.
    Kept,
    /// The process that owns it.
    Owned,
    /// Nobody: its process was killed, and [`crate::remove_stale`] removes it.
    Stale,
}

/// The labs of this machine, by name.
///
/// # Errors
/// [`LabError::Missing`] if the caller is not root, [`LabError::BadRecord`].
pub fn list() -> Result<Vec<LabSummary>, LabError> {
    capability::require_root()?;
    let registry = Registry::lock()?;
    let mut labs = Vec::new();
    for name in record::names()? {
        // Without a record a lab is just being made.
        let Some(record) = LabFolder::of(&name).read()? else { continue };
        let state = if record.is_kept_now() {
            LabState::Kept
        } else if registry.own(&name).is_ok() {
            LabState::Stale
        } else {
            LabState::Owned
        };
        let clusters = &record.spec.clusters;
        let nodes = |cluster: &ClusterSpec| usize::from(cluster.nodes);
        labs.push(LabSummary {
            name,
            clusters: clusters.iter().map(|cluster| cluster.name.clone()).collect(),
            nodes: clusters.iter().map(nodes).sum(),
            pods: clusters.iter().map(|cluster| nodes(cluster) * usize::from(cluster.pods_per_node)).sum(),
            state,
        });
    }
    Ok(labs)
}

impl Lab {
    /// Builds an owned lab.
    ///
    /// # Errors
    /// Any of [`LabError`]; then nothing is left behind.
    pub fn start(spec: LabSpec) -> Result<Self, LabError> {
        Self::start_with(spec, Lifetime::Owned)
    }

    /// Builds a lab that lives as long as `lifetime` says.
    ///
    /// # Errors
    /// Any of [`LabError`]; then nothing is left behind.
    pub fn start_with(spec: LabSpec, lifetime: Lifetime) -> Result<Self, LabError> {
        spec.validate()?;
        capability::preflight()?;
        let cgroup = cgroup::lab_folder(&spec.name).ok_or(crate::MissingCapability::CgroupV2)?;
        let beginning =
            signal::begin().context(|| "watch for signals".to_owned())?.ok_or(LabError::Interrupted)?;
        let (folder, ownership) = {
            let registry = Registry::lock()?;
            namespace::prepare_folder()?;
            registry.create(&spec.name)?
        };
        let owned = Arc::new(OwnedLab {
            name: spec.name.clone(),
            relays: RelayThreads::default(),
            ownership: Mutex::new(Some(ownership)),
        });
        // Until it stands, a lab to be kept is owned too: a failure or a signal removes it.
        let guard = OwnedGuard::new(Arc::clone(&owned));
        drop(beginning);
        let topology = Topology::plan(&spec);
        let mut record = Record::new(spec.clone());
        let (namespaces, data) = {
            let mut ownership = owned.ownership.lock().unwrap_or_else(PoisonError::into_inner);
            folder.write(&record)?;
            let data = folder.make_data(&mut record)?;
            let namespaces = build(&spec.name, &topology, &folder, &cgroup)?;
            if let Lifetime::Kept { keeper, .. } = &lifetime {
                record.keeper =
                    keeper.map(|id| Keeper::find(id).ok_or(LabError::NoSuchProcess(id))).transpose()?;
                record.kept = true;
                if signal::is_ending() {
                    return Err(LabError::Interrupted);
                }
                folder.write(&record)?;
                // From here on it is nobody's, and a signal comes too late to remove it.
                *ownership = None;
            }
            (namespaces, data)
        };
        let life = match lifetime {
            Lifetime::Owned => Life::Owned(guard.into_owned()),
            Lifetime::Kept { relay_command, .. } => Life::Kept { relay_command },
        };
        Ok(Self { spec, topology, namespaces, cgroup, folder, data, life })
    }

    /// Opens a kept lab.
    ///
    /// The first impairment of a link starts `relay_command`, which has to call [`crate::run_relay_process`] with the
    /// two arguments that are added to it: the name of the lab and the name of the link.
    ///
    /// # Errors
    /// [`LabError::NoSuchLab`], also for a lab that belongs to a running process.
    pub fn open(name: &LabName, relay_command: Vec<OsString>) -> Result<Self, LabError> {
        capability::require_root()?;
        let folder = LabFolder::of(name);
        let no_such_lab = || LabError::NoSuchLab(name.clone());
        let record = folder.read()?.filter(Record::is_kept_now).ok_or_else(no_such_lab)?;
        let data = record.data.ok_or_else(no_such_lab)?;
        let topology = Topology::plan(&record.spec);
        let paths = topology.hosts.iter().map(|host| namespace::path(name, &host.name));
        let namespaces = paths.map(|path| Namespace::open(&path)).collect::<Result<_, _>>()?;
        let cgroup = cgroup::lab_folder(name).ok_or(crate::MissingCapability::CgroupV2)?;
        let life = Life::Kept { relay_command };
        Ok(Self { spec: record.spec, topology, namespaces, cgroup, folder, data, life })
    }

    /// What the lab was built from.
    pub fn spec(&self) -> &LabSpec {
        &self.spec
    }

    /// The addresses of a cluster of the lab.
    pub fn cluster(&self, name: &str) -> Option<ClusterAddresses> {
        let cluster = self.spec.clusters.iter().find(|cluster| cluster.name == name)?;
        Some(ClusterAddresses::new(cluster.number, cluster.pod_range))
    }

    /// All hosts: the router, then cluster by cluster the switch, and each node with its pods.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        (0..self.topology.hosts.len()).map(|position| self.host_at(position))
    }

    /// The host named `name`.
    ///
    /// # Errors
    /// [`LabError::NoSuchHost`], which lists the names there are.
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        let position = self.topology.hosts.iter().position(|host| host.name == name);
        position.map(|position| self.host_at(position)).ok_or_else(|| LabError::NoSuchHost {
            lab: self.spec.name.clone(),
            host: name.to_owned(),
            known: self.topology.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" "),
        })
    }

    /// The cable of a node to its switch, by the node's name, or of a cluster to the router, by the cluster's.
    ///
    /// # Errors
    /// [`LabError::NoSuchLink`], which lists the names there are.
    pub fn link(&self, name: &str) -> Result<Link, LabError> {
        let place = self.relay_place(name)?;
        Ok(match &self.life {
            Life::Owned(owned) => Link::with_threads(place, owned.relays.clone()),
            Life::Kept { relay_command } => Link::with_process(
                place,
                RelayProgram {
                    lab: self.spec.name.clone(),
                    command: relay_command.clone(),
                    folder: self.folder.clone(),
                    logs: self.data.join("log"),
                },
            ),
        })
    }

    /// Where the relay of a link stands.
    pub(crate) fn relay_place(&self, link: &str) -> Result<RelayPlace, LabError> {
        let plan = LinkPlan::find(&self.topology, link).ok_or_else(|| LabError::NoSuchLink {
            lab: self.spec.name.clone(),
            link: link.to_owned(),
            known: LinkPlan::names(&self.topology).join(" "),
        })?;
        let (switch, far) = (self.namespaces[plan.switch].clone(), self.namespaces[plan.far].clone());
        Ok(RelayPlace { plan, switch, far, mtu: self.topology.mtu })
    }

    /// Removes the lab and says what could not be removed, which dropping it cannot.
    ///
    /// # Errors
    /// The first thing that could not be removed.
    pub fn remove(self) -> Result<(), LabError> {
        match &self.life {
            Life::Owned(owned) => owned.remove_once(),
            Life::Kept { .. } => removal::remove(&self.spec.name),
        }
    }

    fn host_at(&self, position: usize) -> Host {
        let plan = &self.topology.hosts[position];
        let (cgroup, leaf_cgroup) = cgroups_of(&self.cgroup, plan);
        Host {
            plan: plan.clone(),
            namespace: self.namespaces[position].clone(),
            namespace_path: namespace::path(&self.spec.name, &plan.name),
            cgroup,
            leaf_cgroup,
            bpf: self.folder.bpf().join(&plan.name),
            data: self.data.clone(),
        }
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Life::Owned(owned) = &self.life {
            owned.remove();
            signal::forget(&(Arc::clone(owned) as Arc<dyn Remove>));
        }
    }
}

/// Makes everything of a lab but its folders.
fn build(
    name: &LabName,
    topology: &Topology,
    folder: &LabFolder,
    cgroup: &Path,
) -> Result<Vec<Namespace>, LabError> {
    let bpf = folder.bpf();
    record::make_folder(&bpf)?;
    rustix::mount::mount(
        "landbridge-lab",
        &bpf,
        "bpf",
        rustix::mount::MountFlags::empty(),
        Some(c"mode=0700"),
    )
    .context(|| format!("mount a bpf filesystem on {}", bpf.display()))?;
    cgroup::create(&cgroup.join("relays"))?;
    for host in &topology.hosts {
        let (_, leaf) = cgroups_of(cgroup, host);
        cgroup::create(&leaf)?;
    }
    let namespaces = wiring::create_namespaces(name, topology)?;
    wiring::wire(topology, &namespaces)?;
    Ok(namespaces)
}

/// The cgroup of a host with all below it, and the one that its own processes go to.
fn cgroups_of(lab: &Path, host: &HostPlan) -> (PathBuf, PathBuf) {
    match &host.place {
        Place::Pod { node, .. } => {
            let pod = lab.join(node).join(&host.name);
            (pod.clone(), pod)
        }
        Place::Node(_) | Place::Elsewhere => (lab.join(&host.name), lab.join(&host.name).join("self")),
    }
}

impl OwnedLab {
    fn remove_once(&self) -> Result<(), LabError> {
        let mut ownership = self.ownership.lock().unwrap_or_else(PoisonError::into_inner);
        if ownership.is_none() {
            return Ok(());
        }
        self.relays.stop_all();
        removal::remove_everything(&self.name)?;
        *ownership = None;
        Ok(())
    }
}

impl Remove for OwnedLab {
    fn remove(&self) {
        if let Err(error) = self.remove_once() {
            let mut message = format!("lab {} was not removed whole: {error}", self.name);
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                message.push_str(": ");
                message.push_str(&cause.to_string());
                source = cause.source();
            }
            eprintln!("{message}; run `clusterctl demo clean`");
        }
    }
}

/// Removes a lab whose start fails, and on a signal.
struct OwnedGuard {
    lab: Option<Arc<OwnedLab>>,
}

impl OwnedGuard {
    fn new(lab: Arc<OwnedLab>) -> Self {
        let guard = Self { lab: Some(Arc::clone(&lab)) };
        signal::register(lab);
        guard
    }

    /// The lab stands and is its owner's.
    fn into_owned(mut self) -> Arc<OwnedLab> {
        self.lab.take().expect("a guard is given up once")
    }
}

impl Drop for OwnedGuard {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.remove();
            signal::forget(&(lab as Arc<dyn Remove>));
        }
    }
}

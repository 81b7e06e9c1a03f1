//! A lab from its start to its removal.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, fs};

use serde::Serialize;

use crate::address::ClusterAddresses;
use crate::error::{IoContext, LabError};
use crate::link::LinkPlan;
use crate::namespace::{self, Namespace};
use crate::record::{LabFolder, Ownership, Record};
use crate::relay::RelayThreads;
use crate::signal::{self, Remove};
use crate::topology::{HostPlan, Topology};
use crate::{
    ClusterSpec, Host, LabName, LabSpec, Lifetime, Link, capability, cgroup, record, removal, wiring,
};

/// A lab that stands. An owned one is removed when this is dropped; a kept one stays.
pub struct Lab {
    spec: LabSpec,
    topology: Topology,
    namespaces: Vec<Namespace>,
    cgroup: PathBuf,
    folder: LabFolder,
    life: Life,
}

/// Who ends the lab, which decides where its relays run.
enum Life {
    Owned(Arc<OwnedLab>),
    Kept { relay_command: Vec<String> },
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
    /// Whether it stays until it is removed by name.
    pub kept: bool,
}

/// The labs of this machine, by name.
///
/// # Errors
/// [`LabError::BadRecord`].
pub fn list() -> Result<Vec<LabSummary>, LabError> {
    let mut labs = Vec::new();
    for name in record::names() {
        // Without a record a lab is just being made or removed.
        if let Some(record) = LabFolder::of(&name).read()? {
            let clusters = &record.spec.clusters;
            let nodes = |cluster: &ClusterSpec| usize::from(cluster.nodes);
            labs.push(LabSummary {
                name,
                clusters: clusters.iter().map(|cluster| cluster.name.clone()).collect(),
                nodes: clusters.iter().map(nodes).sum(),
                pods: clusters
                    .iter()
                    .map(|cluster| nodes(cluster) * usize::from(cluster.pods_per_node))
                    .sum(),
                kept: record.kept.is_some(),
            });
        }
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
        let (folder, ownership) = LabFolder::create(&spec.name)?;
        let owned = Arc::new(OwnedLab {
            name: spec.name.clone(),
            relays: RelayThreads::default(),
            ownership: Mutex::new(Some(ownership)),
        });
        // Until it stands, a lab to be kept is owned too: a failure or a signal removes it.
        let guard = OwnedGuard::new(Arc::clone(&owned))?;
        let topology = Topology::plan(&spec);
        let kept = match lifetime {
            Lifetime::Owned => None,
            Lifetime::Kept { relay_command } => {
                Some(relay_command.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>())
            }
        };
        let namespaces = {
            let _building = owned.ownership.lock().unwrap_or_else(PoisonError::into_inner);
            folder.write(&Record { spec: spec.clone(), kept: None })?;
            let namespaces = build(&spec, &topology, &folder, &cgroup)?;
            if kept.is_some() {
                folder.write(&Record { spec: spec.clone(), kept: kept.clone() })?;
            }
            namespaces
        };
        let life = match kept {
            None => Life::Owned(guard.into_owned()),
            Some(relay_command) => {
                guard.release();
                Life::Kept { relay_command }
            }
        };
        Ok(Self { spec, topology, namespaces, cgroup, folder, life })
    }

    /// Opens a kept lab.
    ///
    /// # Errors
    /// [`LabError::NoSuchLab`], also for a lab that belongs to a running process.
    pub fn open(name: &LabName) -> Result<Self, LabError> {
        let folder = LabFolder::of(name);
        let no_such_lab = || LabError::NoSuchLab(name.clone());
        let record = folder.read()?.ok_or_else(no_such_lab)?;
        let relay_command = record.kept.ok_or_else(no_such_lab)?;
        let topology = Topology::plan(&record.spec);
        let paths = topology.hosts.iter().map(|host| namespace::path(name, &host.name));
        let namespaces = paths.map(|path| Namespace::open(&path)).collect::<Result<_, _>>()?;
        let cgroup = cgroup::lab_folder(name).ok_or(crate::MissingCapability::CgroupV2)?;
        Ok(Self {
            spec: record.spec,
            topology,
            namespaces,
            cgroup,
            folder,
            life: Life::Kept { relay_command },
        })
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
        let plan = LinkPlan::find(&self.topology, name).ok_or_else(|| LabError::NoSuchLink {
            lab: self.spec.name.clone(),
            link: name.to_owned(),
            known: LinkPlan::names(&self.topology).join(" "),
        })?;
        let namespaces = self.relay_namespaces(&plan);
        Ok(match &self.life {
            Life::Owned(owned) => Link::with_threads(plan, namespaces, owned.relays.clone()),
            Life::Kept { relay_command } => {
                let name = self.spec.name.clone();
                Link::with_process(plan, namespaces, name, relay_command.clone(), self.folder.clone())
            }
        })
    }

    /// The namespaces at both ends of a link's relay: the switch's, and that of the node or router.
    pub(crate) fn relay_namespaces(&self, plan: &LinkPlan) -> (Namespace, Namespace) {
        (self.namespaces[plan.switch].clone(), self.namespaces[plan.far].clone())
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
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
        let HostPlan { name, role, node, .. } = &self.topology.hosts[position];
        let (cgroup, leaf_cgroup) = cgroups_of(&self.cgroup, name, node.as_deref());
        let (node, pod_number) = self.numbers_of(node.as_deref().unwrap_or(name), name);
        Host {
            name: name.clone(),
            role: *role,
            namespace: self.namespaces[position].clone(),
            namespace_path: namespace::path(&self.spec.name, name),
            cgroup,
            leaf_cgroup,
            folder: self.folder.clone(),
            node,
            pod_number,
        }
    }

    /// The addresses of `node`, and the number of `host` if that is one of its pods.
    fn numbers_of(&self, node: &str, host: &str) -> (Option<crate::NodeAddresses>, Option<u8>) {
        let split = node.find(|c: char| c.is_ascii_digit()).unwrap_or(node.len());
        let (cluster, number) = node.split_at(split);
        let addresses = number.parse().ok().and_then(|number| Some(self.cluster(cluster)?.node(number)));
        let pod =
            host.strip_prefix(node).and_then(|rest| rest.strip_prefix('p')).and_then(|pod| pod.parse().ok());
        (addresses, pod)
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

/// Makes everything of a lab but its folder.
fn build(
    spec: &LabSpec,
    topology: &Topology,
    folder: &LabFolder,
    cgroup: &std::path::Path,
) -> Result<Vec<Namespace>, LabError> {
    let bpf = folder.make("bpf")?;
    rustix::mount::mount(
        "landbridge-lab",
        &bpf,
        "bpf",
        rustix::mount::MountFlags::empty(),
        Some(c"mode=0700"),
    )
    .context(|| format!("mount a bpf filesystem on {}", bpf.display()))?;
    fs::create_dir_all(cgroup.join("relays")).context(|| format!("create cgroup {}", cgroup.display()))?;
    for host in &topology.hosts {
        let (_, leaf) = cgroups_of(cgroup, &host.name, host.node.as_deref());
        fs::create_dir_all(&leaf).context(|| format!("create cgroup {}", leaf.display()))?;
    }
    let namespaces = wiring::create_namespaces(&spec.name, topology)?;
    wiring::wire(topology, &namespaces, spec.mtu)?;
    Ok(namespaces)
}

/// The cgroup of a host with all below it, and the one that its own processes go to.
fn cgroups_of(lab: &std::path::Path, host: &str, node: Option<&str>) -> (PathBuf, PathBuf) {
    match node {
        Some(node) => {
            let pod = lab.join(node).join(host);
            (pod.clone(), pod)
        }
        None => (lab.join(host), lab.join(host).join("self")),
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
    fn new(lab: Arc<OwnedLab>) -> Result<Self, LabError> {
        let guard = Self { lab: Some(Arc::clone(&lab)) };
        signal::register(lab).context(|| "watch for signals".to_owned())?;
        Ok(guard)
    }

    /// The lab stands and is its owner's.
    fn into_owned(mut self) -> Arc<OwnedLab> {
        self.lab.take().expect("a guard is given up once")
    }

    /// The lab stands and needs no owner.
    fn release(mut self) {
        let lab = self.lab.take().expect("a guard is given up once");
        *lab.ownership.lock().unwrap_or_else(PoisonError::into_inner) = None;
        signal::forget(&(lab as Arc<dyn Remove>));
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

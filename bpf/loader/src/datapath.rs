//! A node's datapath: its programs in place, its maps at hand.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use aya::{Ebpf, EbpfLoader};
use landbridge_bpf_maps::NodeConfig;

use crate::error::DatapathError;
use crate::events::Events;
use crate::hooks::{self, Attachment, ENDPOINT_PROGRAMS, OVERLAY_PROGRAMS, UPLINK_PROGRAMS};
use crate::object::Build;
use crate::probes::{Feature, Kernel};
use crate::shape;
use crate::sizes::MapSizes;
use crate::sockets::ConnectedSockets;
use crate::steps;
use crate::tables::Tables;
use crate::versions::{self, MAPS};

/// The constants of the programs.
const CONFIG: &str = "CONFIG";
/// Folders of links.
const OVERLAY: &str = "overlay";
const UPLINK: &str = "uplink";
const ENDPOINTS: &str = "endpoints";

/// Where a datapath goes.
#[derive(Clone, Debug)]
pub struct DatapathOptions {
    /// Folder on a bpf filesystem for the pins; the maps' version is added.
    pub pins: PathBuf,
    /// Folder of the cgroup, version 2, whose sockets are to reach services: the root on a real node.
    pub cgroup: PathBuf,
    /// The tunnel interface (VXLAN with `external`), as the calling thread sees it.
    pub overlay_interface: String,
    /// The interface that leads to other nodes and to the world, likewise. Without it nothing is masqueraded, and pods of
    /// other nodes are reached through tunnels only, whatever `config` says.
    pub uplink_interface: Option<String>,
    /// What the programs know from the start; the numbers of both interfaces are filled in.
    pub config: NodeConfig,
    /// How large the maps are.
    pub sizes: MapSizes,
    /// How programs are held at interfaces; nothing for the newest way that the kernel has.
    pub attachment: Option<Attachment>,
}

/// The programs of a node and their maps.
///
/// Everything is pinned: it goes on when this is dropped or the process ends, until [`Datapath::remove`].
pub struct Datapath {
    object: Ebpf,
    /// The folder of this version's pins.
    pins: PathBuf,
    tables: Tables,
    events: Option<Events>,
    sockets: Option<ConnectedSockets>,
    kernel: Kernel,
    attachment: Attachment,
    /// Where it is.
    options: DatapathOptions,
    /// Pins of older versions, whose programs are in place still.
    older: Vec<(u32, PathBuf)>,
}

impl Datapath {
    /// Loads the programs and attaches them to the cgroup and to the tunnel interface. Where a process before this one
    /// did so, its maps are taken over as they are, and its programs are replaced one by one, those of endpoints too. If
    /// that process was of an older version, its programs go on with its maps until [`Datapath::take_over`].
    ///
    /// # Errors
    /// [`DatapathError`]; nothing is attached or replaced unless all programs are loaded.
    pub fn open(options: &DatapathOptions) -> Result<Self, DatapathError> {
        Self::open_with(options, Build::Released)
    }

    /// As [`Datapath::open`], with the programs of this build.
    ///
    /// # Errors
    /// Likewise.
    #[cfg(feature = "trial")]
    pub fn open_build(options: &DatapathOptions, build: Build) -> Result<Self, DatapathError> {
        Self::open_with(options, build)
    }

    fn open_with(options: &DatapathOptions, build: Build) -> Result<Self, DatapathError> {
        let kernel = Kernel::probe()?;
        let newest = if kernel.has(Feature::TcxLinks) { Attachment::Tcx } else { Attachment::Clsact };
        let attachment = options.attachment.unwrap_or(newest);
        let plain_refusal = if kernel.has(Feature::SocketErrors) { 0 } else { NodeConfig::PLAIN_REFUSAL };
        let uplink = options.uplink_interface.as_deref().map(hooks::index_of).transpose()?;
        let of_uplink = if uplink.is_some() { 0 } else { NodeConfig::DIRECT | NodeConfig::MASQUERADE };
        let config = NodeConfig {
            flags: options.config.flags & !of_uplink | plain_refusal,
            overlay_interface: hooks::index_of(&options.overlay_interface)?,
            uplink_interface: uplink.unwrap_or_default(),
            ..options.config
        };
        let pins = versions::folder(&options.pins);
        let older = versions::older(&options.pins)?;
        older.iter().try_for_each(|older| versions::inherit(older, &pins, &options.sizes))?;
        let mut object = load_pinned(build, &pins.join(MAPS), config, &options.sizes)?;
        hooks::load_programs(&mut object)?;
        let tables = Tables::take(&mut object, &options.sizes)?
            .ok_or_else(|| DatapathError::Services(options.pins.clone()))?;
        let events = Some(Events::take(&mut object)?);
        let sockets = Some(ConnectedSockets::take(&mut object)?);
        let options = options.clone();
        let mut datapath = Self { object, pins, tables, events, sockets, kernel, attachment, options, older };
        if datapath.older.is_empty() {
            datapath.attach()?;
        }
        Ok(datapath)
    }

    /// Whether the programs of an older version are in place, with maps of their own, until [`Datapath::take_over`].
    pub fn is_preparing(&self) -> bool {
        !self.older.is_empty()
    }

    /// Puts this version's programs in the place of an older one's, whose pins are deleted. Call it when the maps are
    /// filled, since what the older ones held is not in them. Does nothing if there is no older version.
    ///
    /// # Errors
    /// [`DatapathError`]; it can be called again then.
    pub fn take_over(&mut self) -> Result<(), DatapathError> {
        if self.older.is_empty() {
            return Ok(());
        }
        self.attach()?;
        versions::forget(&self.older)?;
        self.older.clear();
        Ok(())
    }

    fn attach(&mut self) -> Result<(), DatapathError> {
        steps::connect(&mut self.object)?;
        let options = self.options.clone();
        let endpoints = self.endpoint_links();
        hooks::refresh(&mut self.object, &endpoints, &ENDPOINT_PROGRAMS, self.attachment)?;
        let overlay = Some(options.overlay_interface.as_str());
        for (links, interface, programs) in [
            (OVERLAY, overlay, &OVERLAY_PROGRAMS),
            (UPLINK, options.uplink_interface.as_deref(), &UPLINK_PROGRAMS),
        ] {
            let links = self.pins.join(links);
            let current = interface
                .map(|interface| {
                    hooks::attach_interface(&mut self.object, &links, interface, programs, self.attachment)
                })
                .transpose()?;
            hooks::remove_others(&links, current.as_deref(), programs)?;
        }
        hooks::attach_cgroup(&mut self.object, &self.pins.join("cgroup"), &options.cgroup)
    }

    /// Attaches the programs of a pod to the node's side of its interface. Does nothing if they are there, be it an older
    /// version's that are to be replaced yet.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`], [`DatapathError::Attach`], or what has to do with pins; what the call attached
    /// until then is detached again.
    pub fn attach_endpoint(&mut self, interface: &str) -> Result<(), DatapathError> {
        let links = self.endpoint_links();
        if self.is_preparing() && self.attached_endpoints()?.iter().any(|attached| attached == interface) {
            return Ok(());
        }
        let attachment = self.attachment;
        hooks::attach_interface(&mut self.object, &links, interface, &ENDPOINT_PROGRAMS, attachment).map(drop)
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
        of_interface.into_iter().try_for_each(|folder| hooks::remove_interface(folder, &ENDPOINT_PROGRAMS))
    }

    /// The interfaces with the programs of a pod, those that are gone left out.
    ///
    /// # Errors
    /// [`DatapathError::Folder`].
    pub fn attached_endpoints(&self) -> Result<Vec<String>, DatapathError> {
        let folders = hooks::folders(&self.endpoint_links())?;
        let whole = folders
            .iter()
            .filter(|folder| ENDPOINT_PROGRAMS.iter().all(|program| hooks::is_attached(*program, folder)));
        let interfaces = whole.filter_map(|folder| hooks::interface_of(folder));
        let here = interfaces.filter(|(name, index)| hooks::is_here(name, *index));
        let mut names: Vec<String> = here.map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    /// The kernel that it runs on.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// How programs are held at interfaces.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// What sockets are connected to, for the one who asks first, as with events.
    pub fn take_sockets(&mut self) -> Option<ConnectedSockets> {
        self.sockets.take()
    }

    /// What the programs tell, for the one who asks first: its owner may be another task than the maps'.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
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
    /// [`DatapathError::Detach`], [`DatapathError::Folder`].
    pub fn remove(pins: &Path) -> Result<(), DatapathError> {
        for version in hooks::folders(pins)? {
            for (links, programs) in
                [(OVERLAY, OVERLAY_PROGRAMS), (UPLINK, UPLINK_PROGRAMS), (ENDPOINTS, ENDPOINT_PROGRAMS)]
            {
                let folders = hooks::folders(&version.join(links))?;
                folders.iter().try_for_each(|folder| hooks::remove_interface(folder, &programs))?;
            }
            hooks::remove_folder(&version)?;
        }
        Ok(())
    }

    fn endpoint_links(&self) -> PathBuf {
        self.pins.join(ENDPOINTS)
    }
}

/// A datapath is used by its maps.
impl Deref for Datapath {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl DerefMut for Datapath {
    fn deref_mut(&mut self) -> &mut Tables {
        &mut self.tables
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

/// Makes the maps, or opens those that are pinned in `folder` if they are what is wanted.
fn load_pinned(
    build: Build,
    folder: &Path,
    config: NodeConfig,
    sizes: &MapSizes,
) -> Result<Ebpf, DatapathError> {
    hooks::make_folder(folder)?;
    let pins = shape::all(sizes).map(|(name, shape)| (name, folder.join(name), shape));
    pins.iter().try_for_each(|(name, path, shape)| shape::compare(name, path, *shape))?;
    let paths: Vec<(&str, &Path)> = pins.iter().map(|(name, path, _)| (*name, path.as_path())).collect();
    let object = load(build, &paths, config, sizes)?;
    // What was made just now is of the object's making.
    pins.iter().try_for_each(|(name, path, shape)| shape::compare(name, path, *shape))?;
    Ok(object)
}

/// Makes the maps; those of `pins` are taken from there, or pinned there.
pub(crate) fn load(
    build: Build,
    pins: &[(&str, &Path)],
    config: NodeConfig,
    sizes: &MapSizes,
) -> Result<Ebpf, DatapathError> {
    let config = [config];
    let mut loader = EbpfLoader::new();
    loader.override_global(CONFIG, &config[..], true);
    let object = build.prepare(&mut loader);
    for (name, shape) in shape::all(sizes) {
        if shape.max_entries > 0 {
            loader.map_max_entries(name, shape.max_entries);
        }
    }
    for (name, path) in pins {
        loader.map_pin_path(name, *path);
    }
    loader.load(object).map_err(DatapathError::Object)
}

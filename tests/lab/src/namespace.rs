//! Network namespaces under their name in `/run/netns`, where `ip netns` finds them too.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{panic, thread};

use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::LabName;
use crate::error::{IoContext, LabError};

/// Where iproute2 keeps named namespaces.
const FOLDER: &str = "/run/netns";

/// An open network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    fd: Arc<OwnedFd>,
}

/// The name of a host's namespace: `lb.<lab>.<host>`.
pub(crate) fn name(lab: &LabName, host: &str) -> String {
    format!("lb.{lab}.{host}")
}

/// The file that a host's namespace is mounted on.
pub(crate) fn path(lab: &LabName, host: &str) -> PathBuf {
    Path::new(FOLDER).join(name(lab, host))
}

/// The files of all namespaces of a lab.
pub(crate) fn paths_of(lab: &LabName) -> Vec<PathBuf> {
    let prefix = format!("lb.{lab}.");
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
    ours.map(|entry| entry.path()).collect()
}

/// Makes `/run/netns` a shared mount, as iproute2 does before it adds its first namespace. Without that a later
/// `ip netns add` would bind the folder over itself and hide the mounts made before.
pub(crate) fn prepare_folder() -> Result<(), LabError> {
    fs::create_dir_all(FOLDER).context(|| format!("create {FOLDER}"))?;
    let share = || mount_change(FOLDER, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    if share().is_err() {
        mount_bind_recursive(FOLDER, FOLDER).context(|| format!("bind {FOLDER} to itself"))?;
        share().context(|| format!("share {FOLDER}"))?;
    }
    Ok(())
}

/// Removes a namespace's name. The kernel ends the namespace with its last process and descriptor.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // A crash between creating the file and mounting leaves a plain file.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    fs::remove_file(path)
}

impl Namespace {
    /// Makes a new namespace and mounts it on `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, LabError> {
        let context = || format!("create network namespace {}", path.display());
        OpenOptions::new().write(true).create_new(true).open(path).context(context)?;
        thread::scope(|scope| {
            let made = scope.spawn(|| -> io::Result<()> {
                new_network_namespace()?;
                Ok(mount_bind("/proc/thread-self/ns/net", path)?)
            });
            made.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
        .context(context)?;
        Self::open(path)
    }

    /// Opens the namespace that is mounted on `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, LabError> {
        let file = File::open(path).context(|| format!("open network namespace {}", path.display()))?;
        Ok(Self { fd: Arc::new(file.into()) })
    }

    /// A descriptor of the namespace, for those who move a device or a process into it.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `work` on a thread of its own inside the namespace and returns what it returns.
    ///
    /// # Errors
    /// The error of entering. A panic of `work` goes on in the caller.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.enter().map(|()| work()));
            worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }
}

#[expect(
    unsafe_code,
    reason = "unsharing is unsafe only where threads would stop sharing what others rely on"
)]
fn new_network_namespace() -> io::Result<()> {
    // SAFETY: NEWNET changes which network the calling thread sees, and shares no memory or descriptors less.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?)
}

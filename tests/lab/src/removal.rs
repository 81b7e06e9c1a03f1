//! Removes every trace of a lab, in an order in which nothing that is still running can make new ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{IoContext, LabError};
use crate::mounts;
use crate::record::{self, LabFolder, Registry};
use crate::{LabName, capability, cgroup, namespace};

/// Removes a lab by its name, kept ones too.
///
/// # Errors
/// [`LabError::NoSuchLab`], [`LabError::InUse`] while a running process owns it, [`LabError::Inside`] if the caller is
/// in it, or what could not be removed.
pub fn remove(name: &LabName) -> Result<(), LabError> {
    capability::require_root()?;
    refuse_from_inside(name)?;
    let ownership = {
        let registry = Registry::lock()?;
        match registry.own(name) {
            // Namespaces without a record: somebody deleted that by hand.
            Err(LabError::NoSuchLab(_)) if !namespace::paths_of(name).is_empty() => None,
            outcome => Some(outcome?),
        }
    };
    remove_everything(name)?;
    drop(ownership);
    Ok(())
}

/// Removes what crashed processes left: every lab that is neither kept nor owned by a running process.
///
/// Returns the names of the labs removed.
///
/// # Errors
/// The first thing that could not be removed; what can be is removed all the same.
pub fn remove_stale() -> Result<Vec<LabName>, LabError> {
    capability::require_root()?;
    let mut removed = Vec::new();
    let mut first_error = None;
    for name in record::names()? {
        match remove_if_stale(&name) {
            Ok(true) => removed.push(name),
            Ok(false) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(removed), Err)
}

fn remove_if_stale(name: &LabName) -> Result<bool, LabError> {
    let ownership = {
        let registry = Registry::lock()?;
        // Looked at before it is locked: whoever uses a kept lab must not find it in use.
        if LabFolder::of(name).read()?.is_some_and(|record| record.is_kept_now()) {
            return Ok(false);
        }
        match registry.own(name) {
            Err(LabError::InUse(_) | LabError::NoSuchLab(_)) => return Ok(false),
            outcome => outcome?,
        }
    };
    remove_everything(name)?;
    drop(ownership);
    Ok(true)
}

/// Removes processes, namespaces, mounts and files of a lab that the caller owns. Goes on after an error, and returns
/// the first; the record goes only when nothing else is left.
pub(crate) fn remove_everything(name: &LabName) -> Result<(), LabError> {
    let folder = LabFolder::of(name);
    let cgroup = cgroup::lab_folder(name).map_or(Ok(()), |root| cgroup::remove(&root));
    let namespaces = namespace::paths_of(name);
    // A shell that somebody opened in a host is in no cgroup of ours.
    let strays = namespaces.iter().try_for_each(|path| kill_processes_inside(path));
    let data = folder.read().map(|record| record.and_then(|record| record.data));
    let files = data.and_then(|data| {
        unmount_below(folder.path())?;
        data.map_or(Ok(()), |data| remove_data(&data))
    });
    let namespaces = namespaces.iter().try_for_each(|path| {
        namespace::remove(path).context(|| format!("remove network namespace {}", path.display()))
    });
    cgroup.and(strays).and(files).and(namespaces)?;
    Registry::lock()?.forget(name)
}

fn remove_data(data: &Path) -> Result<(), LabError> {
    // A host's programs share the machine's mounts. Deleting must not reach through what they mounted here.
    unmount_below(data)?;
    record::remove_folder(data)
}

/// Unmounts everything in a folder, the latest mount first.
fn unmount_below(folder: &Path) -> Result<(), LabError> {
    let mounts: Vec<PathBuf> = mounts::all().into_iter().map(|mount| mount.point).collect();
    for point in mounts.into_iter().rev().filter(|point| point.starts_with(folder)) {
        match unmount(&point, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error).context(|| format!("unmount {}", point.display())),
        }
    }
    Ok(())
}

/// The device and inode that name a network namespace.
fn identity_of(path: impl AsRef<Path>) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|namespace| (namespace.dev(), namespace.ino()))
}

fn refuse_from_inside(name: &LabName) -> Result<(), LabError> {
    let own = identity_of("/proc/self/ns/net");
    let in_namespace = namespace::paths_of(name).iter().any(|path| identity_of(path) == own);
    let in_cgroup =
        cgroup::lab_folder(name).is_some_and(|root| cgroup::processes(&root).contains(&std::process::id()));
    if in_namespace || in_cgroup { Err(LabError::Inside(name.clone())) } else { Ok(()) }
}

/// Kills the processes whose main thread is in the namespace mounted on `path`.
fn kill_processes_inside(path: &Path) -> Result<(), LabError> {
    // A plain file left by a crash is on another device than namespaces and matches nothing.
    let Some(namespace) = identity_of(path) else { return Ok(()) };
    let processes = fs::read_dir("/proc").context(|| "read /proc".to_owned())?;
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers {
        // Opened before looking, so that the number cannot pass to another process in between.
        let Some(pidfd) = Pid::from_raw(number).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            continue;
        };
        if identity_of(format!("/proc/{number}/ns/net")) == Some(namespace) {
            match pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).context(|| format!("kill process {number}")),
            }
        }
    }
    Ok(())
}

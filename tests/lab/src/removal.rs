//! Removes every trace of a lab, in an order in which nothing that is still running can make new ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{IoContext, LabError};
use crate::record::{self, LabFolder};
use crate::{LabName, cgroup, namespace};

/// Removes a lab by its name, kept ones too.
///
/// # Errors
/// [`LabError::NoSuchLab`], [`LabError::InUse`] while a running process owns it, or what could not be removed.
pub fn remove(name: &LabName) -> Result<(), LabError> {
    let folder = LabFolder::of(name);
    if !folder.exists() && namespace::paths_of(name).is_empty() {
        return Err(LabError::NoSuchLab(name.clone()));
    }
    let _ownership = if folder.exists() { Some(folder.own(name)?) } else { None };
    remove_everything(name)
}

/// Removes what crashed processes left: every lab that is neither kept nor owned by a running process.
///
/// Returns the names of the labs removed.
///
/// # Errors
/// The first thing that could not be removed; what can be is removed all the same.
pub fn remove_stale() -> Result<Vec<LabName>, LabError> {
    let mut removed = Vec::new();
    let mut first_error = None;
    for name in record::names() {
        match remove_if_stale(&name) {
            Ok(true) => removed.push(name),
            Ok(false) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(removed), Err)
}

fn remove_if_stale(name: &LabName) -> Result<bool, LabError> {
    let folder = LabFolder::of(name);
    let _ownership = match folder.own(name) {
        Err(LabError::InUse(_) | LabError::NoSuchLab(_)) => return Ok(false),
        outcome => outcome?,
    };
    if folder.read()?.is_some_and(|record| record.kept.is_some()) {
        return Ok(false);
    }
    remove_everything(name)?;
    Ok(true)
}

/// Removes processes, namespaces, mounts and files of a lab that the caller owns. Goes on after an error, and
/// returns the first; the record goes only when nothing else is left.
pub(crate) fn remove_everything(name: &LabName) -> Result<(), LabError> {
    let folder = LabFolder::of(name);
    let cgroup = cgroup::lab_folder(name).map_or(Ok(()), |root| cgroup::remove(&root));
    let namespaces = namespace::paths_of(name);
    // A shell that somebody opened in a host is in no cgroup of ours.
    let strays = namespaces.iter().try_for_each(|path| kill_processes_inside(path));
    let bpf = unmount_all(&folder.bpf());
    let namespaces = namespaces.iter().try_for_each(|path| {
        namespace::remove(path).context(|| format!("remove network namespace {}", path.display()))
    });
    cgroup.and(strays).and(bpf).and(namespaces)?;
    folder.remove()
}

fn unmount_all(path: &Path) -> Result<(), LabError> {
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error).context(|| format!("unmount {}", path.display())),
    }
}

/// Kills the processes whose main thread is in the namespace mounted on `path`.
fn kill_processes_inside(path: &Path) -> Result<(), LabError> {
    // A plain file left by a crash is on another device than namespaces and matches nothing.
    let Ok(namespace) = fs::metadata(path) else { return Ok(()) };
    let processes = fs::read_dir("/proc").context(|| "read /proc".to_owned())?;
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers {
        // Opened before looking, so that the number cannot pass to another process in between.
        let Some(pidfd) = Pid::from_raw(number).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            continue;
        };
        let inside = fs::metadata(format!("/proc/{number}/ns/net"))
            .is_ok_and(|own| (own.dev(), own.ino()) == (namespace.dev(), namespace.ino()));
        if inside {
            match pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).context(|| format!("kill process {number}")),
            }
        }
    }
    Ok(())
}

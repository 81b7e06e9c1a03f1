//! The lab's subtree of cgroup v2: the one handle on every process of a host, and where socket programs attach.
//!
//! ```text
//! <cgroup2>/landbridge-lab/<lab>/relays
//!                               /a1/self      processes of the node itself
//!                                  /a1p1      processes of a pod on it
//! ```
//!
//! A node's own processes are in a leaf, so that its subtree obeys the rule of no internal processes.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{IoContext, LabError};
use crate::{LabName, mounts};

/// Longest wait for killed processes to be gone. One that hangs in the kernel may take this long.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Where the cgroup v2 hierarchy is mounted, if it is.
pub(crate) fn mount_point() -> Option<PathBuf> {
    mounts::all().into_iter().find(|mount| mount.filesystem == "cgroup2").map(|mount| mount.point)
}

/// The folder of a lab's subtree, or `None` without cgroup v2.
pub(crate) fn lab_folder(lab: &LabName) -> Option<PathBuf> {
    Some(mount_point()?.join("landbridge-lab").join(lab.as_str()))
}

/// Every folder of a subtree, the root first; empty if it does not exist.
fn subtree(root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        open.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        folders.push(folder);
    }
    folders
}

/// The processes of a subtree.
pub(crate) fn processes(root: &Path) -> Vec<u32> {
    let lists =
        subtree(root).into_iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
    lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Moves a process into a group of a lab's subtree.
pub(crate) fn adopt(lab: &LabName, group: &str, process: u32) -> Result<(), LabError> {
    let folder = lab_folder(lab).ok_or(crate::MissingCapability::CgroupV2)?;
    let path = folder.join(group).join("cgroup.procs");
    fs::write(&path, process.to_string()).context(|| format!("write {process} to {}", path.display()))
}

/// Stops all processes of a subtree where they are, or lets them go on.
pub(crate) fn freeze(root: &Path, frozen: bool) -> Result<(), LabError> {
    let path = root.join("cgroup.freeze");
    fs::write(&path, if frozen { "1" } else { "0" }).context(|| format!("write {}", path.display()))?;
    wait_for(root, "frozen", u8::from(frozen))
}

/// Kills all processes of a subtree and waits until they are gone.
pub(crate) fn kill(root: &Path) -> Result<(), LabError> {
    let path = root.join("cgroup.kill");
    match fs::write(&path, "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome.context(|| format!("write {}", path.display()))?,
    }
    wait_for(root, "populated", 0)
}

/// Waits until `cgroup.events` says `key value`; the kernel raises POLLPRI whenever the file changes.
fn wait_for(root: &Path, key: &str, value: u8) -> Result<(), LabError> {
    let path = root.join("cgroup.events");
    let deadline = Instant::now() + KILL_DEADLINE;
    let mut file = fs::File::open(&path).context(|| format!("open {}", path.display()))?;
    let wanted = format!("{key} {value}");
    loop {
        let mut events = String::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut events))
            .context(|| format!("read {}", path.display()))?;
        if events.lines().any(|line| line == wanted) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = format!("{wanted:?} in {}", path.display());
            return Err(LabError::TimedOut { what, seconds: KILL_DEADLINE.as_secs() });
        }
        let timeout = Timespec::try_from(left).expect("ten seconds fit a timespec");
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| format!("poll {}", path.display())),
        }
    }
}

/// Makes a folder of a lab's subtree, with those above it.
pub(crate) fn create(folder: &Path) -> Result<(), LabError> {
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        match fs::create_dir_all(folder) {
            // The last of the other labs just took the folder of all labs with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {}
            outcome => return outcome.context(|| format!("create cgroup {}", folder.display())),
        }
    }
}

/// Kills what runs in a lab's subtree and removes it, and the folder of all labs with the last one.
pub(crate) fn remove(root: &Path) -> Result<(), LabError> {
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        kill(root)?;
        let removed = subtree(root).iter().rev().try_for_each(fs::remove_dir);
        match removed {
            // A process was started after the others were killed.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            outcome => break outcome.context(|| format!("remove cgroup {}", root.display()))?,
        }
    }
    if let Some(all_labs) = root.parent() {
        // Not empty while another lab lives.
        let _ = fs::remove_dir(all_labs);
    }
    Ok(())
}

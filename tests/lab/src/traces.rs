//! What the machine shows of a lab, for tests that nothing is left of one.

use std::fs;
use std::path::PathBuf;

use crate::LabName;

/// Where a lab has files, outside of cgroups. Spelled out and not taken from those who clean up there, so that their
/// mistakes are found.
const FOLDERS: [&str; 3] = ["/run/netns", "/run/landbridge/lab", "/var/lib/landbridge/lab"];

/// Everything that names a lab: its namespaces, folders, cgroups and mounts.
///
/// # Panics
/// If the mounts cannot be read.
pub fn traces(lab: &LabName) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("every process can read its mounts");
    let cgroups =
        mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4));
    let cgroups = cgroups.map(|root| PathBuf::from(root).join("landbridge-lab"));
    let folders = FOLDERS.into_iter().map(PathBuf::from).chain(cgroups);
    let entries = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let paths = entries.map(|entry| entry.path().display().to_string());
    let mounts = mounts.lines().map(str::to_owned);
    paths.chain(mounts).filter(|trace| trace.contains(lab.as_str())).collect()
}

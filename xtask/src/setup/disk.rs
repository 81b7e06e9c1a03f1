//! Whether the disks have room for what a plan brings, asked before anything changes.

use std::path::PathBuf;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Packages of the distribution.
    System,
    /// The cache of [`crate::cache`].
    Cache,
    /// Toolchains of rustup.
    Rustup,
    /// What cargo builds here afterwards.
    Target,
}

/// A place, and the file system that it is on.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) place: Place,
    pub(crate) folder: PathBuf,
    /// Places with the same device share their free space.
    pub(crate) device: u64,
    pub(crate) free_bytes: u64,
}

/// How much a place will grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) place: Place,
    pub(crate) megabytes: u64,
}

/// A file system is too small for what should go there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough disk space for {folders}: {needed_mb} MB needed, {free_mb} MB free; \
     free some, or move the cache or the build with LANDBRIDGE_CACHE or CARGO_TARGET_DIR"
)]
pub(crate) struct DiskShortage {
    folders: String,
    needed_mb: u64,
    free_mb: u64,
}

/// Checks `needs` against `disks`, adding up what goes to the same file system.
///
/// # Errors
/// The first file system that is too small.
pub(crate) fn check(needs: &[Need], disks: &[Disk]) -> Result<(), DiskShortage> {
    for disk in disks {
        let here = disks.iter().filter(|other| other.device == disk.device);
        let needed =
            |place| needs.iter().filter(|need| need.place == place).map(|need| need.megabytes).sum::<u64>();
        let growing: Vec<(&Disk, u64)> =
            here.map(|other| (other, needed(other.place))).filter(|(_, megabytes)| *megabytes > 0).collect();
        let needed_mb = growing.iter().map(|(_, megabytes)| megabytes).sum();
        let free_mb = disk.free_bytes / 1_000_000;
        if needed_mb > free_mb {
            let folders: Vec<String> =
                growing.iter().map(|(disk, _)| disk.folder.display().to_string()).collect();
            return Err(DiskShortage { folders: folders.join(" and "), needed_mb, free_mb });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(system: (u64, u64), target: (u64, u64)) -> [Disk; 2] {
        let disk = |place, folder: &str, (device, free_mb): (u64, u64)| Disk {
            place,
            folder: folder.into(),
            device,
            free_bytes: free_mb * 1_000_000,
        };
        [disk(Place::System, "/usr", system), disk(Place::Target, "/src/target", target)]
    }

    #[test]
    fn places_on_one_file_system_share_its_space() {
        let needs =
            [Need { place: Place::System, megabytes: 1200 }, Need { place: Place::Target, megabytes: 2000 }];
        assert_eq!(check(&needs, &disks((1, 3000), (2, 3000))), Ok(()));
        let text = check(&needs, &disks((1, 3000), (1, 3000))).unwrap_err().to_string();
        let expected = "not enough disk space for /usr and /src/target: 3200 MB needed, 3000 MB free;";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_disk_that_nothing_goes_to_may_be_full() {
        let needs = [Need { place: Place::System, megabytes: 1200 }];
        assert_eq!(check(&needs, &disks((1, 3000), (2, 0))), Ok(()));
    }
}

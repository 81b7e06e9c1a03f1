//! The folder where setup keeps what is not part of a system: tools, and other people's binaries to compare with.
//!
//! ```text
//! <cache>/lock                       held by the one xtask that changes the cache
//! <cache>/tools/bin/                 bpf-linker, cargo-deny
//! <cache>/peers/etcd-<version>/      Debian packages, unpacked: usr/bin/etcd{,ctl}
//! <cache>/.staging-*                 work in progress
//! ```
//!
//! Everything is made in a staging folder and then renamed to its place, so whatever has its final name is complete.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};

/// Where tools are that cargo installed, in the cache.
pub(crate) const TOOLS_BIN: &str = "tools/bin";

/// Where unpacked peers are, in the cache, one folder each.
pub(crate) const PEERS: &str = "peers";

const STAGING_PREFIX: &str = ".staging-";

/// Reading the cache needs no lock; [`Cache::lock`] gives the right to change it.
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache of this user: `$LANDBRIDGE_CACHE`, else `landbridge` in `$XDG_CACHE_HOME`, else in `~/.cache`.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let dir = place(|name| env::var_os(name));
        let dir =
            dir.ok_or_else(|| anyhow!("no cache folder, HOME is not set: set LANDBRIDGE_CACHE to a folder"))?;
        Ok(Self {
            dir: std::path::absolute(&dir).with_context(|| format!("cache folder {}", dir.display()))?,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where tools are that cargo installed here.
    pub(crate) fn tools_bin(&self) -> PathBuf {
        self.dir.join(TOOLS_BIN)
    }

    /// Where unpacked peers are, one folder each.
    pub(crate) fn peers(&self) -> PathBuf {
        self.dir.join(PEERS)
    }

    /// Waits until no other xtask changes the cache, and says so if there is one.
    pub(crate) fn lock(&self) -> anyhow::Result<LockedCache<'_>> {
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot make the cache folder {}", self.dir.display()))?;
        let path = self.dir.join("lock");
        let context = || format!("cannot lock {}", path.display());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(context)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).with_context(context)?;
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    process => format!("process {process}"),
                };
                println!("setup: waiting for {holder}, which holds {}", path.display());
                file.lock().with_context(context)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        file.set_len(0).with_context(context)?;
        file.rewind().with_context(context)?;
        writeln!(file, "{}", std::process::id()).with_context(context)?;
        let locked = LockedCache { cache: self, _lock: file };
        locked.remove_stale_staging()?;
        Ok(locked)
    }
}

fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("LANDBRIDGE_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|dir| dir.join("landbridge")))
        .or_else(|| folder("HOME").map(|dir| dir.join(".cache/landbridge")))
}

/// The right to change the cache, for as long as this lives.
pub(crate) struct LockedCache<'a> {
    cache: &'a Cache,
    _lock: File,
}

impl LockedCache<'_> {
    /// An empty folder on the cache's own file system, removed when dropped. Its name is of this process alone: a child of
    /// one that was killed may still write.
    pub(crate) fn staging(&self, purpose: &str) -> anyhow::Result<Staging> {
        let path = self.cache.dir.join(format!("{STAGING_PREFIX}{purpose}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Staging { path })
    }

    /// Moves something complete from a staging folder to `place` in the cache, and returns where it is now.
    pub(crate) fn publish(&self, staged: &Path, place: &Path) -> anyhow::Result<PathBuf> {
        let place = self.cache.dir.join(place);
        let context = || format!("cannot move {} to {}", staged.display(), place.display());
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(context)?;
        }
        if place.is_dir() {
            fs::remove_dir_all(&place).with_context(context)?;
        }
        fs::rename(staged, &place).with_context(context)?;
        Ok(place)
    }

    /// Nobody else holds the lock, so a staging folder that exists belongs to a run that was killed.
    fn remove_stale_staging(&self) -> anyhow::Result<()> {
        let dir = &self.cache.dir;
        let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
                let stale = entry.path();
                fs::remove_dir_all(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
            }
        }
        Ok(())
    }
}

/// A folder for work in progress.
pub(crate) struct Staging {
    path: PathBuf,
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next one that locks the cache.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        place(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_nearest_setting_decides_the_place() {
        let home = ("HOME", "/home/ada");
        let xdg = ("XDG_CACHE_HOME", "/big");
        assert_eq!(place_with(&[home]), Some("/home/ada/.cache/landbridge".into()));
        assert_eq!(place_with(&[home, xdg]), Some("/big/landbridge".into()));
        assert_eq!(place_with(&[home, xdg, ("LANDBRIDGE_CACHE", "/here")]), Some("/here".into()));
        assert_eq!(place_with(&[home, ("XDG_CACHE_HOME", "")]), Some("/home/ada/.cache/landbridge".into()));
        assert_eq!(place_with(&[]), None);
    }
}

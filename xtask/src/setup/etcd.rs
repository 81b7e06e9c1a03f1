//! Unpacks etcd servers into the cache. They are never installed: the package's unit would start a service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, anyhow, bail, ensure};

use super::{
    apt,
    apt_sources::Mirror,
    etcd_version::{EtcdVersion, WANTED_BY_BENCHES},
    packages,
};
use crate::{
    cache::{LockedCache, PEERS},
    process::{self, CommandError},
};

/// Releases of Debian to take a newer etcd from, the steadiest first.
const NEWER_SUITES: [&str; 3] = ["trixie", "forky", "sid"];

/// Unpacks the distribution's own etcd, and returns where it is.
pub(crate) fn unpack_own(locked: &LockedCache<'_>) -> anyhow::Result<PathBuf> {
    let staging = locked.staging("etcd")?;
    let packages = apt::download(packages::ETCD_SERVER, staging.path())?;
    unpack(&packages, staging.path(), locked)
}

/// Unpacks an etcd that is new enough to compare with, and its etcdctl, from the first newer release of Debian that has one.
///
/// # Errors
/// Why each of them did not.
pub(crate) fn unpack_newer(mirror: &Mirror, locked: &LockedCache<'_>) -> anyhow::Result<PathBuf> {
    let mut reasons = Vec::new();
    for suite in NEWER_SUITES {
        let staging = locked.staging(&format!("etcd-{suite}"))?;
        let names = [packages::ETCD_SERVER, packages::ETCD_CLIENT];
        let unpacked = apt::download_from(mirror, suite, &names, staging.path()).and_then(|packages| {
            let version = upstream_version(&packages)?;
            if version < WANTED_BY_BENCHES {
                bail!("it has etcd {version}");
            }
            unpack(&packages, staging.path(), locked)
        });
        match unpacked {
            Ok(place) => return Ok(place),
            Err(error) => reasons.push(format!("{suite} {}", reason(&error))),
        }
    }
    Err(anyhow!(reasons.join("; ")))
}

/// Three times the output of apt about one missing network would hide what matters.
fn reason(error: &anyhow::Error) -> String {
    match error.downcast_ref::<CommandError>() {
        Some(error) if error.looks_unreachable() => "cannot be reached".to_owned(),
        _ => format!("does not serve: {error:#}"),
    }
}

fn unpack(packages: &[PathBuf], staging: &Path, locked: &LockedCache<'_>) -> anyhow::Result<PathBuf> {
    let version = upstream_version(packages)?;
    let tree = staging.join("tree");
    fs::create_dir(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
    for package in packages {
        apt::unpack(package, &tree)?;
    }
    // A binary of a newer release may want a newer libc than this system has.
    process::run_quietly(Command::new(tree.join("usr/bin/etcd")).arg("--version"))?;
    locked.publish(&tree, &Path::new(PEERS).join(version.folder()))
}

/// The version of packages that come from one source.
fn upstream_version(packages: &[PathBuf]) -> anyhow::Result<EtcdVersion> {
    let mut versions = packages.iter().map(|package| {
        let version = apt::version_of(package)?;
        EtcdVersion::parse(&version)
            .ok_or_else(|| anyhow!("package version {:?} is none of etcd", version.trim()))
    });
    let first = versions.next().context("there are no packages")??;
    for other in versions {
        let other = other?;
        ensure!(other == first, "the server and its client are of versions {first} and {other}");
    }
    Ok(first)
}

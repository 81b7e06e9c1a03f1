//! Starts apt: the system's own, and a private one that only downloads.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};

use super::{apt_sources::Mirror, facts::Offered};
use crate::process::{self, CommandError};

/// How long apt waits for another package manager, in seconds.
const DPKG_LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=120";

/// Reads the package lists of the system.
///
/// A source that cannot be reached is no error for apt as long as it has old lists, nor is it here: what is missing
/// then shows when packages are to be installed. The output is returned for that moment.
pub(crate) fn update() -> anyhow::Result<String> {
    process::run_quietly(apt_get().args(["-o", DPKG_LOCK_TIMEOUT, "update"]))
        .map_err(|error| explain(error, "apt-get update"))
}

/// Whether the package lists say anything, after an update with this output.
///
/// # Errors
/// If there still is nothing to choose from.
pub(crate) fn check_lists(offered: &Offered, update_output: &str) -> anyhow::Result<()> {
    let unreachable = process::looks_unreachable(update_output);
    match offered {
        Offered::Known(_) => {
            if unreachable {
                println!("setup: note: apt-get update could not reach every package source in /etc/apt");
            }
            Ok(())
        }
        Offered::Unknown => bail!(
            "{}apt-get update brought no package lists; repair the network or the package sources in /etc/apt, then \
             run `cargo xtask setup` again; its output ends with\n{}",
            if unreachable { "no network: " } else { "" },
            process::tail(update_output)
        ),
    }
}

/// Installs packages, without questions and without what they merely recommend.
pub(crate) fn install(names: &[String]) -> anyhow::Result<()> {
    let mut command = apt_get();
    command.args(["-o", DPKG_LOCK_TIMEOUT, "install", "--yes", "--no-install-recommends"]).args(names);
    process::run_quietly(&mut command).map_err(|error| explain(error, "apt-get install"))?;
    Ok(())
}

/// Downloads the system's own version of a package into `folder`, without installing it.
pub(crate) fn download(name: &str, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = apt_get();
    // apt would hand the download to a user who may not write into a private folder.
    command.args(["-o", "APT::Sandbox::User=root", "download", name]).current_dir(folder);
    process::run_quietly(&mut command).map_err(|error| explain(error, "apt-get download"))?;
    downloaded(folder)
}

/// Downloads packages of another release, with lists and caches of its own under `folder`: the system's stay as they are.
/// Signatures are checked as ever.
pub(crate) fn download_from(
    mirror: &Mirror,
    suite: &str,
    names: &[&str],
    folder: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot prepare {}", folder.display());
    for subfolder in ["lists/partial", "archives/partial", "package"] {
        fs::create_dir_all(folder.join(subfolder)).with_context(context)?;
    }
    let options =
        mirror.signed_by.as_ref().map(|keyring| format!("[signed-by={keyring}] ")).unwrap_or_default();
    let source = format!("deb {options}{} {suite} main\n", mirror.uri);
    fs::write(folder.join("sources.list"), source).with_context(context)?;

    let in_folder = |option: &str, file: &str| format!("{option}={}", folder.join(file).display());
    let options = [
        in_folder("Dir::Etc::sourcelist", "sources.list"),
        in_folder("Dir::State::lists", "lists"),
        in_folder("Dir::Cache", ""),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        // Pins of the system would hide other releases.
        "Dir::Etc::preferences=/dev/null".to_owned(),
        "Dir::Etc::preferencesparts=/dev/null".to_owned(),
        // Nothing is needed but the list of packages.
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        // An old list would be taken for the answer of a mirror that cannot be reached.
        "APT::Update::Error-Mode=any".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let private = || {
        let mut command = apt_get();
        command.args(options.iter().flat_map(|option| ["-o", option]));
        command
    };
    process::run_quietly(private().arg("update"))?;
    let package = folder.join("package");
    process::run_quietly(private().arg("download").args(names).current_dir(&package))?;
    downloaded(&package)
}

/// Unpacks a package into a folder.
pub(crate) fn unpack(package: &Path, folder: &Path) -> anyhow::Result<()> {
    process::run_quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
    Ok(())
}

/// The version that a package file says it has.
pub(crate) fn version_of(package: &Path) -> anyhow::Result<String> {
    Ok(process::run_quietly(Command::new("dpkg-deb").arg("--field").arg(package).arg("Version"))?)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // The output is read for what it says of the network, so it has to be in English.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command.args(["--quiet", "-o", "Dpkg::Use-Pty=0"]);
    command
}

fn downloaded(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let files = fs::read_dir(folder).with_context(context)?.flatten().map(|entry| entry.path());
    let packages: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect();
    ensure!(!packages.is_empty(), "apt-get download left no package in {}", folder.display());
    Ok(packages)
}

fn explain(error: CommandError, what: &str) -> anyhow::Error {
    let next = if error.looks_unreachable() {
        format!(
            "no network: {what} cannot reach the package sources in /etc/apt; connect, then run `cargo xtask setup` again"
        )
    } else {
        format!("{what} failed; repair what its output names, then run `cargo xtask setup` again")
    };
    anyhow::Error::new(error).context(next)
}

//! Tools that are built by `cargo install`, in a pinned version, into the cache.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    cache::{LockedCache, TOOLS_BIN},
    cargo,
    process::{self, CommandError},
};

/// How one tool is built.
pub(crate) struct CargoTool {
    /// Package and binary.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Further arguments of `cargo install`.
    pub(crate) arguments: Vec<String>,
    /// Variables that its build needs.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl CargoTool {
    /// Builds the tool and puts it into the cache; returns where it is.
    pub(crate) fn install(&self, cache: &LockedCache<'_>) -> anyhow::Result<PathBuf> {
        let (name, version) = (self.name, self.version);
        println!("setup: building {name} {version}, takes about a minute");
        let start = Instant::now();
        let staging = cache.staging(name)?;
        let mut install = cargo::cargo_for_install();
        install
            .args(["install", "--locked", "--no-track", &format!("{name}@{version}")])
            .args(&self.arguments);
        install.arg("--root").arg(staging.path());
        install.envs(self.variables.iter().map(|(variable, value)| (variable, value)));
        install.env("CARGO_TARGET_DIR", staging.path().join("target"));
        process::run_quietly(&mut install).map_err(|error| {
            let next = next_step(&error, name);
            anyhow::Error::new(error).context(next)
        })?;
        let place =
            cache.publish(&staging.path().join("bin").join(name), &Path::new(TOOLS_BIN).join(name))?;
        println!("setup: {name} {version} is in {} ({:.0?})", place.display(), start.elapsed());
        Ok(place)
    }
}

fn next_step(error: &CommandError, name: &str) -> String {
    if error.looks_unreachable() {
        format!(
            "no network: cargo cannot reach its registry for {name}; connect, then run `cargo xtask setup` again"
        )
    } else {
        format!("{name} does not build; repair what its output names, then run `cargo xtask setup` again")
    }
}

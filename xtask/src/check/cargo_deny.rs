//! Licences, banned crates, sources and advisories, by cargo-deny and `deny.toml`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    report::{Outcome, Report},
    stream,
};
use crate::{cache::Cache, cargo, cargo_tool::CargoTool, process, workspace};

const VERSION: &str = "0.20.2";

/// Records the checks of both dependency trees: the workspace's and the kernel side's.
pub(crate) fn check(report: &mut Report) {
    let program = match program() {
        Ok(program) => program,
        Err(error) => {
            return report.record("dependencies", || Outcome::Failed(format!("no cargo-deny: {error:#}")));
        }
    };
    let workspace = workspace::root().join("Cargo.toml");
    let bpf_programs = workspace::bpf_programs_manifest();
    let rules = ["licenses", "bans", "sources"];
    report.record("dependencies", || stream(deny(&program, &workspace).arg("check").args(rules)));
    report.record("dependencies, bpf/programs", || {
        if !bpf_programs.is_file() {
            return Outcome::Skipped("there is no bpf/programs/Cargo.toml".to_owned());
        }
        // It has few dependencies, and so not every licence that the workspace has.
        stream(
            deny(&program, &bpf_programs).args(["check", "--allow", "license-not-encountered"]).args(rules),
        )
    });
    report.record("advisories", || check_advisories(&program, &[workspace, bpf_programs]));
}

/// The cargo-deny on the PATH, else the one in the cache, which is built if it is not there.
fn program() -> anyhow::Result<PathBuf> {
    let cache = Cache::open()?;
    let in_cache = cache.tools_bin().join("cargo-deny");
    for program in [PathBuf::from("cargo-deny"), in_cache] {
        if process::query(Command::new(&program).arg("--version")).is_some() {
            return Ok(program);
        }
    }
    let tool = CargoTool {
        name: "cargo-deny",
        version: VERSION,
        // It runs for a second: an optimised build takes three times as long and wins nothing.
        arguments: vec!["--debug".into()],
        variables: vec![("CARGO_PROFILE_DEV_DEBUG", "0".into())],
    };
    tool.install(&cache.lock()?)
}

fn deny(program: &Path, manifest: &Path) -> Command {
    let mut command = cargo::cargo_environment_of(program);
    command.arg("--locked").arg("--manifest-path").arg(manifest);
    command.arg("--config").arg(workspace::root().join("deny.toml"));
    command
}

/// A machine that cannot fetch the database says so, rather than failing for what it cannot know.
fn check_advisories(program: &Path, manifests: &[PathBuf]) -> Outcome {
    let manifests = manifests.iter().filter(|manifest| manifest.is_file());
    let mut outcome = Outcome::Ok;
    for (index, manifest) in manifests.enumerate() {
        if index == 0
            && let Err(error) = process::run_quietly(deny(program, manifest).args(["fetch", "db"]))
        {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            return Outcome::Skipped(format!("the advisory database cannot be fetched: {last}"));
        }
        let checked = stream(deny(program, manifest).args(["check", "--disable-fetch", "advisories"]));
        if checked != Outcome::Ok {
            outcome = checked;
        }
    }
    outcome
}

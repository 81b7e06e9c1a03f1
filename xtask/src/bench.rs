//! `cargo xtask bench`: one benchmark beside its peer.

use std::{ffi::OsString, process::ExitCode};

use crate::{cargo, process};

/// Runs one benchmark, release build, each beside its peer in the same run.
///
/// `cargo xtask setup --peers` installs what they are compared with.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which benchmark; `-- --help` after the name lists what it takes.
    name: OsString,
    /// Passed on to the benchmark, for example `-o json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.name == "kvstore" {
        let mut build = cargo::cargo();
        build.args(["build", "--release", "--package", "landbridge-kvstore"]);
        anyhow::ensure!(build.status()?.success(), "the store cannot be built");
    }
    let mut command = cargo::cargo();
    command.args(["run", "--release", "--package", "landbridge-bench", "--"]).arg(args.name).args(args.rest);
    process::become_command(command)
}

//! `cargo xtask check`: everything about the tree that can be judged without running it.

mod cargo_deny;
mod report;

use std::process::{Command, ExitCode};

use crate::{cargo, process, setup, workspace};
use report::{Outcome, Report};

/// Checks format, lints, licences, advisories and documentation.
///
/// All of them run even if one fails; the end says which.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> ExitCode {
    // Lints and documentation compile the loader, which builds the kernel side.
    setup::run_or_warn();
    let mut report = Report::default();
    report.record("format", || stream(cargo::cargo().args(["fmt", "--all", "--check"])));
    report.record("format, bpf/programs", check_bpf_format);
    report.record("lints", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
        stream(cargo::cargo().args(arguments))
    });
    cargo_deny::check(&mut report);
    report.record("documentation", || {
        let arguments = ["doc", "--workspace", "--no-deps", "--locked"];
        stream(cargo::cargo().args(arguments).env("RUSTDOCFLAGS", "-Dwarnings"))
    });

    println!();
    for line in report.lines() {
        println!("{line}");
    }
    if report.any_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn check_bpf_format() -> Outcome {
    let manifest = workspace::bpf_programs_manifest();
    if !manifest.is_file() {
        return Outcome::Skipped("there is no bpf/programs/Cargo.toml".to_owned());
    }
    stream(cargo::cargo().args(["fmt", "--check", "--manifest-path"]).arg(manifest))
}

/// Runs a command with its output shown as it goes.
fn stream(command: &mut Command) -> Outcome {
    let shown = process::describe(command);
    println!("check: {shown}");
    match command.status() {
        Ok(status) if status.success() => Outcome::Ok,
        Ok(status) => Outcome::Failed(format!("`{shown}` ({status})")),
        Err(error) => Outcome::Failed(format!("cannot start `{shown}`: {error}")),
    }
}

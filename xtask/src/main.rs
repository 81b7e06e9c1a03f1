//! Developer commands of Landbridge, run as `cargo xtask <command>`.
//!
//! ```text
//! setup               facts → plan → steps: installs what the rest needs
//! check, test         what CI runs, in this order (`.ci/run`)
//! demo, lab           clusters as network namespaces on this machine
//! bench, soak         numbers, and what leaks over time
//! ```
//!
//! Whatever decides something is a plain function with tests; starting processes is left to thin shells around them.
//! This is the first crate that a newcomer compiles, so it stays small.

mod bench;
mod cache;
mod cargo;
mod cargo_tool;
mod check;
mod demo;
mod lab;
mod process;
mod setup;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Landbridge.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Demo(demo::Args),
    Test(test::Args),
    Check(check::Args),
    Bench(bench::Args),
    Soak(soak::Args),
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => Ok(check::run(&args)),
        Command::Bench(args) => bench::run(args),
        Command::Soak(args) => soak::run(args),
        Command::Lab(args) => lab::run(args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

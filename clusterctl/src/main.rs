//! The command line of Landbridge: one file per subcommand.

mod demo;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Joins Kubernetes clusters into one network.
#[derive(Parser)]
#[command(name = "clusterctl", version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Demo(demo) => demo.run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

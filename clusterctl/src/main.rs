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
        if landbridge_lab::is_ending() {
            // What failed did so because its lab is being removed; the signal is the answer.
            landbridge_lab::wait_for_end();
        }
        if !output::is_closed_pipe(&error) {
            eprintln!("error: {error:#}");
        }
        ExitCode::FAILURE
    })
}

//! The command line of Landbridge: one file per subcommand.

mod admin;
mod connect;
mod contexts;
mod demo;
mod disconnect;
mod output;
mod status;

use std::process::ExitCode;

use anyhow::Context as _;
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
    Connect(connect::Connect),
    Disconnect(disconnect::Disconnect),
    Status(status::StatusArgs),
    Demo(demo::Demo),
}

/// The command worked and found something wrong.
const PROBLEMS: u8 = 3;
/// Some of the clusters did not answer.
const PARTIAL: u8 = 5;

/// What commands that talk to clusters run on. One thread: they wait, they do not compute.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Connect(connect) => connect.run().map(|()| ExitCode::SUCCESS),
        Command::Disconnect(disconnect) => disconnect.run(),
        Command::Status(status) => status.run(),
        Command::Demo(demo) => demo.run(),
    };
    outcome.unwrap_or_else(|error| {
        if landbridge_lab::is_ending() {
            // What failed did so because its lab is being removed; the signal is the answer.
            landbridge_lab::wait_for_end();
        }
        if !output::is_closed_pipe(&error) {
            // Errors carry what clusters and programs said.
            eprintln!("error: {}", output::escaped_lines(&format!("{error:#}")));
        }
        ExitCode::FAILURE
    })
}

//! `clusterctl demo`: clusters on this one machine, to try things on.

mod capture;
mod clean;
mod down;
mod exec;
mod hosts;
mod link;
mod list;
mod load;
mod relay;
mod run;
mod serve;
mod tour;
mod up;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use landbridge_lab::{Lab, LabName};

/// Try Landbridge on this machine: several clusters, each host a network namespace. Needs root.
///
/// `run` is a short tour that cleans up after itself. `up` leaves the clusters standing until `down`; in between,
/// `exec` runs programs on their hosts and `link` cuts and degrades the cables between them.
#[derive(Args)]
pub(crate) struct Demo {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Up(up::Up),
    Hosts(hosts::Hosts),
    Exec(exec::Exec),
    Link(link::LinkArgs),
    Capture(capture::CaptureArgs),
    List(list::List),
    Down(down::Down),
    Clean(clean::Clean),
    Serve(serve::Serve),
    Load(load::Load),
    #[command(hide = true)]
    Relay(relay::Relay),
}

/// Which lab a command is about.
#[derive(Args)]
struct LabChoice {
    /// Name of the lab
    #[arg(long, default_value = "demo", value_name = "NAME")]
    lab: LabName,
}

impl LabChoice {
    fn open(&self) -> anyhow::Result<Lab> {
        Ok(Lab::open(&self.lab, relay_command()?)?)
    }
}

/// This program as the user called it, for commands to type next.
fn called_as() -> String {
    env::args_os().next().map_or_else(|| "clusterctl".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What `demo link` starts for a link of a kept lab: this program itself.
fn relay_command() -> anyhow::Result<Vec<OsString>> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    Ok([program.as_os_str(), "demo".as_ref(), "relay".as_ref()].map(OsString::from).to_vec())
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self.command {
            Command::Run(command) => command.run().map(done),
            Command::Up(command) => command.run().map(done),
            Command::Hosts(command) => command.run().map(done),
            Command::Exec(command) => command.run().map(done),
            Command::Link(command) => command.run().map(done),
            Command::Capture(command) => command.run().map(done),
            Command::List(command) => command.run().map(done),
            Command::Down(command) => command.run().map(done),
            Command::Clean(command) => command.run().map(done),
            Command::Serve(command) => command.run().map(done),
            Command::Load(command) => command.run().map(done),
            Command::Relay(command) => command.run().map(done),
        }
    }
}

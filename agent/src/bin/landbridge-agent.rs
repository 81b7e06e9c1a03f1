//! The agent of a node.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use landbridge_agent::agent::Agent;
use landbridge_agent::config::{Args, Config};
use landbridge_agent::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = telemetry::init(&args.log) {
        eprintln!("cannot read --log: {error}");
        return ExitCode::from(2);
    }
    match Box::pin(run(args)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the agent ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::try_from(args)?; // every setting is checked here, once
    let mut stop = Box::pin(shutdown_signal()?);
    let agent = tokio::select! {
        agent = Agent::bind(config) => agent?, // interfaces, programs and sockets are in place, nothing runs yet
        () = &mut stop => return Ok(()),
    };
    agent.run_until(stop).await
}

/// Completes when the process is told to end.
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("told to end, the datapath stays as it is");
    })
}

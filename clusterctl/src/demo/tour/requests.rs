//! Clients of the demo: `clusterctl demo load`, run in pods.

use std::env;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, bail};
use landbridge_lab::{Host, Process};

use super::observed::Observed;
use crate::demo::load::Outcome;

/// Requests from a pod.
pub(super) struct Requests {
    process: Process,
}

impl Requests {
    /// Sends `count` requests and waits for all of them.
    pub(super) fn send(from: &Host, target: SocketAddr, count: u32) -> anyhow::Result<Observed> {
        let mut command = load(from, target)?;
        let output = command.args(["--count", &count.to_string(), "--every", "5ms"]).output();
        let output = output.with_context(|| format!("cannot send requests from {}", from.name()))?;
        if !output.status.success() {
            bail!(
                "sending requests from {} failed: {}",
                from.name(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        outcomes(&String::from_utf8_lossy(&output.stdout))
    }

    /// Sends requests until this is dropped.
    pub(super) fn start(from: &Host, name: &str, target: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { process: from.spawn(&format!("load-{name}"), load(from, target)?)? })
    }

    /// What was seen until now.
    pub(super) fn seen(&self) -> anyhow::Result<Observed> {
        outcomes(&self.process.log())
    }

    /// Goes on after the process was killed.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        Ok(self.process.restart()?)
    }
}

fn load(from: &Host, target: SocketAddr) -> anyhow::Result<Command> {
    let mut command = from.command(env::current_exe().context("cannot find this program's own file")?)?;
    command.args(["demo", "load", &target.to_string()]);
    Ok(command)
}

/// The requests that a log tells of. The last line may still be on its way.
fn outcomes(log: &str) -> anyhow::Result<Observed> {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let outcomes: Result<Vec<Outcome>, _> = whole.lines().map(serde_json::from_str).collect();
    Ok(Observed::new(
        outcomes.with_context(|| format!("a client said something else than outcomes: {whole}"))?,
    ))
}

//! What a kubelet does for a pod: an interface by CNI, its program, its status.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::manifest::{Manifest, Pod};
use super::{Agent, DeploymentError, POLL, Programs, START_TIMEOUT, error};
use crate::{Host, Lab, Process};

/// A pod that runs.
pub struct RunningPod {
    name: String,
    host: Host,
    /// At least one, IPv4 first.
    addresses: Vec<IpAddr>,
    port: Option<u16>,
    /// `None` for a pod without a command.
    process: Option<Process>,
}

impl fmt::Debug for RunningPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningPod")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl RunningPod {
    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host of the lab that it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its address, the first one if it has one of each family.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// All of its addresses, IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Starts its program again.
    pub(super) fn restart(&mut self) -> Result<(), DeploymentError> {
        if let Some(process) = &mut self.process {
            process.restart()?;
        }
        self.wait_until_ready()
    }

    /// Waits until the pod's port takes connections.
    fn wait_until_ready(&mut self) -> Result<(), DeploymentError> {
        let Some(port) = self.port else { return Ok(()) };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + START_TIMEOUT;
        while self.host.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err())? {
            let ended = self.process.as_mut().is_none_or(|process| process.wait(POLL).is_ok());
            if ended || Instant::now() >= deadline {
                let log = self.process.as_ref().map(Process::log).unwrap_or_default();
                return Err(DeploymentError::Failed {
                    program: format!("the program of pod {}", self.name),
                    words: error::last_lines(&log),
                });
            }
        }
        Ok(())
    }
}

/// Runs all pods of the manifests, each on a host of the node that it is assigned to.
pub(super) fn run_pods(
    lab: &Lab,
    agents: &[Agent],
    programs: &Programs,
    manifests: &[Manifest],
    folder: &Path,
) -> Result<Vec<RunningPod>, DeploymentError> {
    let mut taken: BTreeMap<&str, u8> = BTreeMap::new();
    let mut pods = Vec::new();
    for manifest in manifests {
        let Some(pod) = &manifest.pod else { continue };
        let node = pod.spec.node_name.as_str();
        let agent = agents.iter().find(|agent| agent.node.name() == node).ok_or_else(|| {
            manifest.wrong(format!("no node of this cluster is called {node:?} (spec.nodeName)"))
        })?;
        let number = taken.entry(node).or_default();
        *number += 1;
        let no_host = |_| DeploymentError::NoHost { node: node.to_owned(), pod: pod.metadata.name.clone() };
        let host = lab.host(&format!("{node}p{number}")).map_err(no_host)?;
        let mut running = start(agent, &host, programs, manifest, pod)?;
        running.wait_until_ready()?;
        manifest.write_ready(folder, &running.addresses)?;
        pods.push(running);
    }
    Ok(pods)
}

fn start(
    agent: &Agent,
    host: &Host,
    programs: &Programs,
    manifest: &Manifest,
    pod: &Pod,
) -> Result<RunningPod, DeploymentError> {
    let name = pod.metadata.name.clone();
    let addresses = add_interface(agent, host, programs, pod)?;
    let container = pod.spec.containers.first().ok_or_else(|| manifest.wrong("the pod has no container"))?;
    let mut words = container.command.iter().chain(&container.args);
    let process = match words.next() {
        None => None,
        Some(program) => {
            let mut command = host.command(programs.find(program))?;
            command.args(words);
            command.envs(container.env.iter().map(|variable| (&variable.name, variable.value(pod))));
            Some(host.spawn(&name, command)?)
        }
    };
    let port = container.ports.first().map(|port| port.container_port);
    Ok(RunningPod { name, host: host.clone(), addresses, port, process })
}

/// The part of a CNI result that is needed here (CNI specification 1.0.0, "Success").
#[derive(Deserialize)]
struct CniResult {
    ips: Vec<CniAddress>,
}

#[derive(Deserialize)]
struct CniAddress {
    address: String,
}

/// Calls `landbridge-cni` as a container runtime does, and returns the pod's addresses, which are at least one.
fn add_interface(
    agent: &Agent,
    host: &Host,
    programs: &Programs,
    pod: &Pod,
) -> Result<Vec<IpAddr>, DeploymentError> {
    let program = format!("landbridge-cni ADD for pod {}", pod.metadata.name);
    let failed = |words: String| DeploymentError::Failed { program: program.clone(), words };
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "landbridge",
        "type": "landbridge-cni",
        "agentSocket": agent.socket,
    });
    let mut command = agent.node.command(programs.cni())?;
    command
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", host.name())
        .env("CNI_NETNS", host.namespace_path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", programs.cni().parent().unwrap_or(Path::new("/")))
        .env(
            "CNI_ARGS",
            format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={}", pod.metadata.namespace, pod.metadata.name),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(DeploymentError::file("run", &programs.cni()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(config.to_string().as_bytes())
            .map_err(DeploymentError::file("write to", &programs.cni()))?;
    }
    let output = child.wait_with_output().map_err(DeploymentError::file("wait for", &programs.cni()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(failed(said + &String::from_utf8_lossy(&output.stderr)));
    }
    let result: CniResult =
        serde_json::from_str(&said).map_err(|error| failed(format!("{error} in {said}")))?;
    let addresses = result.ips.iter().map(|ip| ip.address.split('/').next()?.parse().ok());
    let addresses: Option<Vec<IpAddr>> = addresses.collect();
    addresses.filter(|all| !all.is_empty()).ok_or_else(|| failed(format!("no address in {said}")))
}

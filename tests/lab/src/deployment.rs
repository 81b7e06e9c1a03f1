//! Landbridge on the clusters of a lab: its programs, started by their paths, and whoever runs the pods.
//!
//! ```text
//! node a1:  landbridge-apiserver ◄── manifests/ ◄── kubelet: reads the pods of the cluster, calls landbridge-cni,
//!           landbridge-agent ◄────────────────────── runs their commands, writes their status
//! node a2:  landbridge-agent
//! ```
//!
//! The kubelet's part is played by this process: it ends with the deployment, the pods' programs with it. What the
//! programs keep on disk and in the kernel stays until the lab goes, so that a cluster which was killed comes back as it
//! would after a power failure.

mod error;
mod kubelet;
mod manifest;
mod programs;

pub use error::DeploymentError;
pub use kubelet::RunningPod;
pub use programs::Programs;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Host, Lab, Process};

/// How long a program may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// One cluster of a lab, running Landbridge. Its programs end when this is dropped.
#[derive(Debug)]
pub struct Deployment {
    cluster: String,
    data: PathBuf,
    apiserver: Process,
    agents: Vec<Agent>,
    pods: Vec<RunningPod>,
}

/// The agent of a node.
#[derive(Debug)]
struct Agent {
    node: Host,
    socket: PathBuf,
    process: Process,
}

impl Deployment {
    /// Starts Landbridge on the nodes of `cluster`, and then the pods that `manifests` assign to them. The lab's pods
    /// have to be [`PodWiring::Unwired`](crate::PodWiring::Unwired), and as many as the manifests ask for.
    ///
    /// `manifests` is a folder of YAML files. It is copied; the pods' status is written to the copy.
    ///
    /// # Errors
    /// [`DeploymentError`], with the last words of a program that ended.
    ///
    /// # Panics
    /// Never: the nodes of a lab have addresses.
    pub fn start(
        lab: &Lab,
        cluster: &str,
        programs: &Programs,
        manifests: &Path,
    ) -> Result<Self, DeploymentError> {
        let spec = lab.spec().clusters.iter().find(|spec| spec.name == cluster);
        let spec = spec.ok_or_else(|| DeploymentError::NoSuchCluster(cluster.to_owned()))?;
        let nodes: Vec<Host> = (1..=spec.nodes)
            .map(|number| lab.host(&format!("{cluster}{number}")))
            .collect::<Result<_, _>>()?;
        let first = nodes.first().ok_or_else(|| DeploymentError::NoSuchCluster(cluster.to_owned()))?;

        let data = first.data_folder()?.join("apiserver");
        let manifests_in_use = first.data_folder()?.join("manifests");
        let manifests = manifest::read(manifests)?;
        manifest::write_all(&manifests, &manifests_in_use)?;

        let [address, _] = first.addresses().expect("nodes have addresses");
        let store = format!("https://{address}:2379");
        let mut command = first.command(programs.apiserver())?;
        command.args(["serve", "--cluster", cluster, "--cluster-id", &spec.number.to_string()]);
        command.arg("--data-dir").arg(&data).arg("--manifests").arg(&manifests_in_use);
        let socket = admin_socket(&data);
        command.arg("--admin-socket").arg(&socket);
        command.arg("--listen").arg(format!("{address}:2379"));
        command.arg("--advertise").arg(&store);
        command.arg("--pod-range").arg(format!("10.{0}.0.0/16,fd10:{0:x}::/32", spec.pod_range));
        command.args(["--service-range", "10.96.0.0/16"]);
        let mut apiserver = first.spawn("apiserver", command)?;
        wait_for_socket(&mut apiserver, "landbridge-apiserver", &socket)?;

        let start = |node| Agent::start(node, cluster, spec.number, programs, &data, &store);
        let agents: Vec<Agent> = nodes.iter().map(start).collect::<Result<_, _>>()?;
        let mut deployment = Self { cluster: cluster.to_owned(), data, apiserver, agents, pods: Vec::new() };
        for agent in &mut deployment.agents {
            wait_for_socket(&mut agent.process, "landbridge-agent", &agent.socket)?;
        }
        deployment.pods =
            kubelet::run_pods(lab, &deployment.agents, programs, &manifests, &manifests_in_use)?;
        Ok(deployment)
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The socket of the cluster's admin API.
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.data)
    }

    /// The apiserver's data, with its certificates in `pki`.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The pods, in the order of their manifests.
    pub fn pods(&self) -> &[RunningPod] {
        &self.pods
    }

    /// The pod of that name.
    ///
    /// # Errors
    /// [`DeploymentError::NoSuchPod`].
    pub fn pod(&self, name: &str) -> Result<&RunningPod, DeploymentError> {
        let missing = || DeploymentError::NoSuchPod { cluster: self.cluster.clone(), pod: name.to_owned() };
        self.pods.iter().find(|pod| pod.name() == name).ok_or_else(missing)
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Host> {
        self.agents.iter().map(|agent| &agent.node)
    }

    /// Kills the apiserver with SIGKILL and starts it again.
    ///
    /// # Errors
    /// [`DeploymentError`] if it does not come back.
    pub fn restart_apiserver(&mut self) -> Result<(), DeploymentError> {
        self.apiserver.restart()?;
        wait_for_socket(&mut self.apiserver, "landbridge-apiserver", &admin_socket(&self.data))
    }

    /// Kills the agent of the node at `index` with SIGKILL and starts it again.
    ///
    /// # Errors
    /// [`DeploymentError`] if there is none or it does not come back.
    pub fn restart_agent(&mut self, index: usize) -> Result<(), DeploymentError> {
        let missing = || DeploymentError::NoSuchNode { cluster: self.cluster.clone(), index };
        let agent = self.agents.get_mut(index).ok_or_else(missing)?;
        agent.process.restart()?;
        wait_for_socket(&mut agent.process, "landbridge-agent", &agent.socket)
    }

    /// Kills every process of the cluster's nodes and pods at once, whoever started it.
    ///
    /// # Errors
    /// [`DeploymentError::Lab`].
    pub fn kill(&self) -> Result<(), DeploymentError> {
        for agent in &self.agents {
            agent.node.kill()?;
        }
        Ok(())
    }

    /// Starts all programs again after [`Deployment::kill`], those of the pods included.
    ///
    /// # Errors
    /// [`DeploymentError`] if one does not come back.
    pub fn bring_back(&mut self) -> Result<(), DeploymentError> {
        self.restart_apiserver()?;
        for index in 0..self.agents.len() {
            self.restart_agent(index)?;
        }
        for pod in &mut self.pods {
            pod.restart()?;
        }
        Ok(())
    }

    /// The last lines of what the cluster's programs logged, to show with an error.
    pub fn last_words(&self) -> String {
        let agents = self.agents.iter().map(|agent| (agent.node.name(), &agent.process));
        let processes = std::iter::once(("apiserver", &self.apiserver)).chain(agents);
        let words: Vec<String> = processes
            .map(|(name, process)| {
                format!("{}, {name}:\n{}", self.cluster, error::last_lines(&process.log()))
            })
            .collect();
        words.join("\n")
    }
}

impl Agent {
    fn start(
        node: &Host,
        cluster: &str,
        cluster_id: u8,
        programs: &Programs,
        apiserver_data: &Path,
        store: &str,
    ) -> Result<Self, DeploymentError> {
        let data = node.data_folder()?;
        let certificates = data.join("certificates");
        let mut issue = Command::new(programs.apiserver());
        issue.arg("certificate").arg("--data-dir").arg(apiserver_data);
        issue.args(["--user", &format!("agent-{}", node.name())]).arg("--out").arg(&certificates);
        programs::run_to_end("landbridge-apiserver certificate", &mut issue)?;

        let socket = data.join("agent.sock");
        let mut command = node.command(programs.agent())?;
        command.args(["--cluster", cluster, "--cluster-id", &cluster_id.to_string(), "--node", node.name()]);
        command.args(["--kvstore-endpoint", store]);
        command.arg("--tls-ca").arg(certificates.join("ca.crt"));
        command.arg("--tls-cert").arg(certificates.join("client.crt"));
        command.arg("--tls-key").arg(certificates.join("client.key"));
        command.arg("--socket").arg(&socket).arg("--state-dir").arg(data.join("agent"));
        command.arg("--bpf-dir").arg(node.bpf_folder()?).arg("--cgroup").arg(node.cgroup());
        command.args(["--uplink", "eth0"]);
        let process = node.spawn("agent", command)?;
        Ok(Self { node: node.clone(), socket, process })
    }
}

/// Waits until `process` accepts connections on `socket`.
fn wait_for_socket(process: &mut Process, name: &str, socket: &Path) -> Result<(), DeploymentError> {
    let deadline = Instant::now() + START_TIMEOUT;
    while UnixStream::connect(socket).is_err() {
        if process.wait(POLL).is_ok() || Instant::now() >= deadline {
            return Err(DeploymentError::silent(name, socket, &process.log()));
        }
    }
    Ok(())
}

/// Where the admin API of an apiserver with its data in `data` is.
fn admin_socket(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

//! The tour: two clusters become one network, before the user's eyes.

mod drill;
mod manifests;
mod observed;
mod requests;

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use landbridge_apiserver_api::v1::ServiceStatus;
use landbridge_lab::{Deployment, Lab, LabName, LabSpec, PodWiring, Programs, RunningPod};

use self::requests::Requests;
use crate::connect::Connect;
use crate::contexts::{ClusterContext, Config, Contexts};
use crate::output::say;
use crate::status;

/// Where the demo's web servers listen.
const WEB_PORT: u16 = 8080;
/// Pods per node that the lab has room for.
const PODS_PER_NODE: u8 = 4;
/// How long counts and records may take to arrive where they are shown.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Two clusters that run Landbridge.
pub(super) struct Tour {
    // Before the lab: what runs in it ends first.
    a: Deployment,
    b: Deployment,
    lab: Lab,
    contexts: Contexts,
}

impl Tour {
    /// Starts both clusters, not connected.
    pub(super) fn start(
        name: LabName,
        programs: &Programs,
        manifests: Option<&Path>,
    ) -> anyhow::Result<Self> {
        heading("Two clusters on this machine, each host a network namespace")?;
        let start = Instant::now();
        let spec = LabSpec::new(name).with_clusters(2, 2, PODS_PER_NODE).with_pods(PodWiring::Unwired);
        let lab = Lab::start(spec)?;
        let folder = lab.host("a1")?.data_folder()?;
        let manifests = match manifests {
            Some(manifests) => manifests.to_owned(),
            None => manifests::unpack(&folder.join("deploy"))?,
        };
        let (a, b) = std::thread::scope(|scope| {
            let a = scope.spawn(|| Deployment::start(&lab, "a", programs, &manifests.join("a")));
            let b = Deployment::start(&lab, "b", programs, &manifests.join("b"));
            (a.join(), b)
        });
        let a = a.map_err(|_| anyhow!("starting cluster a panicked"))??;
        let b = b?;
        for cluster in [&a, &b] {
            report(format_args!(
                "cluster {}: an apiserver with its store, {} nodes, pods {}",
                cluster.cluster(),
                cluster.nodes().count(),
                cluster.pods().iter().map(RunningPod::name).collect::<Vec<_>>().join(", ")
            ))?;
        }
        report(format_args!("they run after {:.1} s", start.elapsed().as_secs_f64()))?;

        let config = folder.join("clusterctl.yaml");
        write_config(&config, [&a, &b])?;
        Ok(Self { a, b, lab, contexts: Contexts::of_file(config) })
    }

    /// What there is to see.
    pub(super) fn guide(&mut self) -> anyhow::Result<()> {
        heading("clusterctl connect a b")?;
        Connect::between("a", "b", self.contexts.clone()).run()?;

        heading("clusterctl status")?;
        let clusters = self.status()?;
        let problems: Vec<&str> =
            clusters.iter().flat_map(|cluster| &cluster.problems).map(String::as_str).collect();
        ensure!(problems.is_empty(), "something is wrong: {}", problems.join("; "));
        status::print(&clusters)?;

        self.pods_reach_pods()?;
        self.service_has_backends_of_both()?;
        self.policy_holds_across_clusters()?;
        self.drills()
    }

    fn pods_reach_pods(&self) -> anyhow::Result<()> {
        heading("A pod reaches a pod of the other cluster by its addresses, of IPv4 and of IPv6")?;
        for (from, to) in [
            (self.a.pod("client-a1")?, self.b.pod("web-b2")?),
            (self.b.pod("client-b1")?, self.a.pod("web-a2")?),
        ] {
            for address in to.addresses() {
                let target = SocketAddr::new(*address, WEB_PORT);
                let answers = Requests::send(from.host(), target, 5)?;
                ensure!(answers.by_pod(to.name()) == answers.sent(), "{target} answered {answers}");
                report(format_args!("{} asks {target}: {answers}", from.name()))?;
            }
        }
        Ok(())
    }

    fn service_has_backends_of_both(&self) -> anyhow::Result<()> {
        heading(
            "A service annotated global has the backends of both clusters, behind its own address in each",
        )?;
        for (cluster, client) in [(&self.a, "client-a1"), (&self.b, "client-b1")] {
            let target = self.web_of(cluster.cluster())?;
            let answers = Requests::send(cluster.pod(client)?.host(), target, 200)?;
            ensure!(answers.failed() == 0, "{client} asked {target}, and {answers}");
            ensure!(answers.clusters().len() == 2, "only one cluster answered {client}: {answers}");
            report(format_args!("{client} asks {target}: {answers}"))?;
        }
        Ok(())
    }

    fn policy_holds_across_clusters(&self) -> anyhow::Result<()> {
        heading("A policy of cluster b lets clients of cluster a reach the vault, and nobody else")?;
        let vault = self.b.pod("vault")?;
        let target = SocketAddr::new(vault.address(), WEB_PORT);
        let dropped_before = self.denied_by_policy()?;

        let allowed = Requests::send(self.a.pod("client-a1")?.host(), target, 5)?;
        ensure!(allowed.failed() == 0, "client-a1 of cluster a was refused: {allowed}");
        report(format_args!("client-a1 of cluster a asks {target}: {allowed}"))?;

        let refused = Requests::send(self.b.pod("client-b1")?.host(), target, 5)?;
        ensure!(refused.failed() == refused.sent(), "client-b1 of cluster b got through: {refused}");
        report(format_args!("client-b1 of cluster b asks {target}: {refused}"))?;

        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let dropped = loop {
            let dropped = self.denied_by_policy()?.saturating_sub(dropped_before);
            if dropped >= refused.sent() {
                break dropped;
            }
            ensure!(Instant::now() < deadline, "only {dropped} packets are counted as denied by policy");
        };
        report(format_args!("the kernel of b's nodes dropped {dropped} packets: Policy denied"))
    }

    fn drills(&mut self) -> anyhow::Result<()> {
        let mut loads = drill::Loads::start(&[(&self.a, self.web_of("a")?), (&self.b, self.web_of("b")?)])?;
        heading("Cluster b fails: its links go down and all its processes are killed, under load")?;
        drill::run(&self.lab, &mut self.b, &mut loads, "a")?;
        heading("Cluster a fails")?;
        drill::run(&self.lab, &mut self.a, &mut loads, "b")
    }

    /// The address and port of the service `web` of a cluster.
    fn web_of(&self, cluster: &str) -> anyhow::Result<SocketAddr> {
        let clusters = self.status()?;
        let status = clusters.iter().find(|status| status.cluster == cluster).context("no such cluster")?;
        let is_web = |service: &&ServiceStatus| service.namespace == "shop" && service.name == "web";
        let service = status.services.iter().find(is_web).context("no service shop/web")?;
        let port = service.ports.first().context("service shop/web has no port")?.port;
        let address: IpAddr = service.cluster_address.parse().context("service shop/web has no address")?;
        Ok(SocketAddr::new(address, port.try_into().context("no such port")?))
    }

    /// Packets that b's nodes dropped for policy.
    fn denied_by_policy(&self) -> anyhow::Result<u64> {
        /// "Policy denied", by Cilium's number.
        const POLICY_DENIED: u32 = 133;
        let clusters = self.status()?;
        let nodes = clusters.iter().filter(|status| status.cluster == "b").flat_map(|status| &status.nodes);
        let drops = nodes.flat_map(|node| &node.drops).filter(|drop| drop.reason == POLICY_DENIED);
        Ok(drops.map(|drop| drop.packets).sum())
    }

    fn status(&self) -> anyhow::Result<Vec<landbridge_apiserver_api::v1::GetStatusResponse>> {
        status::of_all(&self.contexts)
    }

    /// The end of every program's log.
    pub(super) fn last_words(&self) -> String {
        format!("{}\n{}", self.a.last_words(), self.b.last_words())
    }

    /// Ends everything, and says what could not be removed.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        drop((self.a, self.b));
        Ok(self.lab.remove()?)
    }
}

fn write_config(path: &Path, clusters: [&Deployment; 2]) -> anyhow::Result<()> {
    let context = |cluster: &Deployment| ClusterContext {
        name: cluster.cluster().to_owned(),
        admin: format!("unix://{}", cluster.admin_socket().display()),
    };
    let config = Config { clusters: clusters.map(context).to_vec() };
    // JSON is YAML.
    let text = serde_json::to_vec_pretty(&config).context("cannot write the configuration as JSON")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn heading(text: &str) -> anyhow::Result<()> {
    say(format_args!("\n{text}"))
}

pub(super) fn report(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    say(format_args!("  {text}"))
}

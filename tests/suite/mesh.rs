//! Two clusters that run Landbridge, as their users drive them: by `clusterctl`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use landbridge_lab::{Deployment, Host, Lab, LabName, LabSpec, PodWiring, Process, Programs};
use serde_json::Value;

/// How long anything may take until a test gives up.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// Where the demo's web servers listen.
pub(crate) const WEB_PORT: u16 = 8080;

/// Both clusters of the demo. What runs in the lab ends before it.
pub(crate) struct Mesh {
    pub(crate) a: Deployment,
    pub(crate) b: Deployment,
    pub(crate) lab: Lab,
    config: PathBuf,
    clusterctl: PathBuf,
}

impl Mesh {
    /// Starts both clusters from the manifests in `deploy/demo`.
    pub(crate) fn start(stem: &str) -> Self {
        let programs = Programs::beside_this().unwrap();
        let spec =
            LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(2, 2, 4).with_pods(PodWiring::Unwired);
        let lab = Lab::start(spec).unwrap();
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
        let start =
            |cluster: &str| Deployment::start(&lab, cluster, &programs, &manifests.join(cluster)).unwrap();
        let (a, b) = (start("a"), start("b"));
        let config = lab.host("a1").unwrap().data_folder().unwrap().join("clusterctl.yaml");
        let sockets = [&a, &b].map(|cluster| {
            format!(
                "  - name: {}\n    admin: unix://{}\n",
                cluster.cluster(),
                cluster.admin_socket().display()
            )
        });
        fs::write(&config, format!("clusters:\n{}", sockets.concat())).unwrap();
        let clusterctl = programs.apiserver().with_file_name("clusterctl");
        Self { a, b, lab, config, clusterctl }
    }

    /// As [`Mesh::start`], and connected.
    pub(crate) fn connected(stem: &str) -> Self {
        let mesh = Self::start(stem);
        let output = mesh.clusterctl(&["connect", "a", "b"]);
        let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(output.status.success(), "{words}\n{}\n{}", mesh.a.last_words(), mesh.b.last_words());
        mesh
    }

    pub(crate) fn clusterctl(&self, args: &[&str]) -> Output {
        let config = self.config.to_str().unwrap();
        Command::new(&self.clusterctl).args(args).args(["--config", config]).output().unwrap()
    }

    /// The state of a cluster, as `clusterctl status -o json` has it.
    pub(crate) fn status(&self, cluster: &str) -> Value {
        let output = self.clusterctl(&["status", "-o", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let clusters = report["clusters"].as_array().unwrap();
        let found = clusters.iter().find(|status| status["cluster"] == cluster);
        found.unwrap_or_else(|| panic!("no cluster {cluster} in {report}")).clone()
    }

    /// The address of the service `shop/web` in a cluster.
    pub(crate) fn web_of(&self, cluster: &str) -> SocketAddr {
        let status = self.status(cluster);
        let services = status["services"].as_array().unwrap();
        let web = services.iter().find(|service| service["name"] == "web").unwrap();
        let address: IpAddr = web["clusterAddress"].as_str().unwrap().parse().unwrap();
        SocketAddr::new(address, u16::try_from(web["ports"][0]["port"].as_u64().unwrap()).unwrap())
    }

    /// Packets that the nodes of a cluster dropped for a reason, by Cilium's number.
    pub(crate) fn dropped(&self, cluster: &str, reason: u64) -> u64 {
        let status = self.status(cluster);
        let nodes = status["nodes"].as_array().unwrap().iter();
        let drops = nodes.flat_map(|node| node["drops"].as_array().unwrap().clone());
        drops.filter(|drop| drop["reason"] == reason).map(|drop| drop["packets"].as_u64().unwrap()).sum()
    }

    /// Asks `target` from a pod, `count` times.
    pub(crate) fn ask(&self, from: &Host, target: SocketAddr, count: u32) -> Vec<Request> {
        let mut command = from.command(&self.clusterctl).unwrap();
        command.args(["demo", "load", &target.to_string(), "--every", "5ms", "--count", &count.to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        requests(&String::from_utf8(output.stdout).unwrap())
    }

    /// Asks `target` from a pod until the load is dropped.
    pub(crate) fn load(&self, from: &Host, target: SocketAddr) -> Load {
        let mut command = from.command(&self.clusterctl).unwrap();
        command.args(["demo", "load", &target.to_string()]);
        Load(from.spawn("load", command).unwrap())
    }
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) sent: SystemTime,
    /// The pod and the cluster that answered, or why nobody did.
    pub(crate) answer: Result<(String, String), String>,
}

impl Request {
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.answer.as_ref().ok().map(|(_, cluster)| cluster.as_str())
    }
}

/// A steady load.
pub(crate) struct Load(Process);

impl Load {
    /// Every request that has ended and was sent at `start` or later.
    pub(crate) fn since(&self, start: SystemTime) -> Vec<Request> {
        let log = self.0.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        requests(whole).into_iter().filter(|request| request.sent >= start).collect()
    }

    /// Waits until `look` finds what it looks for in the requests since `start`.
    pub(crate) fn wait<T>(&self, start: SystemTime, what: &str, look: impl Fn(&[Request]) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let seen = self.since(start);
            if let Some(found) = look(&seen) {
                return found;
            }
            let last = seen.last();
            assert!(
                Instant::now() < deadline,
                "not within {TIMEOUT:?}: {what}; last of {}: {last:?}",
                seen.len()
            );
            thread::sleep(POLL);
        }
    }
}

/// Returns the requests if there are `enough` and both clusters answered.
pub(crate) fn both_answer(seen: &[Request], enough: usize) -> Option<()> {
    let clusters: BTreeSet<&str> = seen.iter().filter_map(Request::cluster).collect();
    (seen.len() >= enough && clusters.len() == 2).then_some(())
}

/// The requests that nobody answered.
pub(crate) fn failures(seen: &[Request]) -> Vec<&Request> {
    seen.iter().filter(|request| request.answer.is_err()).collect()
}

fn requests(lines: &str) -> Vec<Request> {
    let parse = |line: &str| {
        let outcome: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (pod, cluster) = (text(&outcome["answer"]["pod"]), text(&outcome["answer"]["cluster"]));
        let error = text(&outcome["error"]).unwrap_or_default();
        let sent = Duration::from_micros(outcome["sentMicros"].as_u64().unwrap());
        Request { sent: SystemTime::UNIX_EPOCH + sent, answer: pod.zip(cluster).ok_or(error) }
    };
    lines.lines().map(parse).collect()
}

//! A cluster `a` of two nodes whose store is an etcd that the test fills in the apiserver's place.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use landbridge_kvstore_schema::{
    AddressType, Capabilities, ClusterConfig, ClusterId, ClusterName, Identity, IpIdentityPair, IpOrPrefix,
    Ipv4Prefix, Keyspace, Label, Labels, LocalPod, MaxClusters, NamespacedName, Node, NodeAddress,
    NumericIdentity, ObjectName, Origin, OwnRecord, RecordName, cluster_config_key,
};
use landbridge_lab::requirement::etcd;
use landbridge_lab::{Host, Lab, LabName, LabSpec, PodWiring, Process};
use serde_json::Value;

/// Longest wait for anything in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How long etcdctl may take while etcd starts, and once it runs, as etcdctl writes it.
const BRIEFLY: &str = "2s";
const PATIENTLY: &str = "30s";
/// The namespace of all pods.
const NAMESPACE: &str = "shop";

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) etcd: Process,
    endpoint: String,
}

/// An agent and where its node's files are.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) node: Host,
    pub(crate) socket: PathBuf,
}

/// Waits until `look` returns something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn v4(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("a").unwrap()
}

fn origin() -> Origin {
    let cluster_id = ClusterId::new(1, MaxClusters::Of255).unwrap();
    Origin { keyspace: Keyspace::state(cluster()), cluster_id }
}

impl World {
    /// Two nodes with two pods each, which nothing connects yet; the store knows cluster and nodes.
    pub(crate) fn start(stem: &str) -> Self {
        let spec =
            LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(1, 2, 2).with_pods(PodWiring::Unwired);
        let lab = Lab::start(spec).unwrap();
        let server = lab.host("a1").unwrap();
        let endpoint = format!("http://{}:2379", server.addresses().unwrap()[0]);
        let mut command = server.command(etcd().unwrap()).unwrap();
        command.arg("--data-dir").arg(server.data_folder().unwrap().join("etcd"));
        command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        let etcd = server.spawn("etcd", command).unwrap();
        let world = Self { lab, etcd, endpoint };
        until("etcd", || world.etcdctl(BRIEFLY, &["endpoint", "health"]).ok());
        world.publish_cluster();
        world
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    fn etcdctl(&self, patience: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        let mut command = self.host("a1").command("etcdctl").unwrap();
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint, "--command-timeout", patience, "--dial-timeout", patience])
            .args(args);
        let output = command.output().unwrap();
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    pub(crate) fn put(&self, key: &str, value: Vec<u8>) {
        self.etcdctl(PATIENTLY, &["put", "--", key, &String::from_utf8(value).unwrap()]).unwrap();
    }

    /// The value of a key, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let value = self.etcdctl(PATIENTLY, &["get", "--print-value-only", key]).unwrap();
        value.strip_suffix(b"\n").filter(|value| !value.is_empty()).map(<[u8]>::to_vec)
    }

    fn publish_cluster(&self) {
        let config = ClusterConfig { id: origin().cluster_id, capabilities: Capabilities::default() };
        self.put(&cluster_config_key(&cluster()), config.encode());
        for node in ["a1", "a2"] {
            let addresses = self.host(node).node_addresses().unwrap();
            let IpAddr::V4(network) = addresses.pod_cidrs()[0].address else { unreachable!() };
            let ip = addresses.underlay()[0];
            let record = Node {
                name: name(node),
                addresses: vec![NodeAddress { address_type: AddressType::InternalIp, ip }],
                ipv4_pod_cidrs: vec![Ipv4Prefix::new(network, 24).unwrap()],
                ipv6_pod_cidrs: Vec::new(),
                ipv4_health: None,
                ipv6_health: None,
                ipv4_ingress: None,
                ipv6_ingress: None,
                encryption_key: 0,
                labels: [].into(),
                annotations: [].into(),
                wireguard_public_key: String::new(),
                boot_id: String::new(),
            };
            self.put(&origin().keyspace.key(&record.record_name()), record.encode(&origin()));
        }
    }

    /// Publishes what an apiserver knows of a pod before it has an address. The lab's pod `a1p1` is `shop/a1p1`.
    pub(crate) fn publish_pod(&self, pod: &str) {
        let number =
            NumericIdentity(65_536 + 256 + u32::from(pod.as_bytes()[1]) * 256 + u32::from(pod.as_bytes()[3]));
        let mut labels = Labels::default();
        labels.insert(Label::new("k8s", "app", pod).unwrap());
        let identity = Identity::new(&origin(), number, labels).unwrap();
        self.put(&origin().keyspace.key(&identity.name()), identity.encode());
        let record = LocalPod { node: name(&pod[..2]), identity: number.0, uid: String::new() };
        let pod = NamespacedName::new(NAMESPACE, pod).unwrap();
        self.put(&LocalPod::key(&pod).to_string(), record.encode());
    }

    /// Publishes where a pod is, as an apiserver does once its status has the address.
    pub(crate) fn publish_address(&self, pod: &str, address: Ipv4Addr) {
        let key = LocalPod::key(&NamespacedName::new(NAMESPACE, pod).unwrap()).to_string();
        let identity = LocalPod::decode(&key, &self.get(&key).unwrap()).unwrap().identity;
        let record = IpIdentityPair {
            ip: IpOrPrefix::address(address.into()),
            host_ip: Some(self.host(&pod[..2]).addresses().unwrap()[0]),
            identity: NumericIdentity(identity),
            encryption_key: 0,
            metadata: String::new(),
            namespace: NAMESPACE.to_owned(),
            pod_name: pod.to_owned(),
            service_account: String::new(),
            named_ports: Vec::new(),
        };
        self.put(&origin().keyspace.key(&RecordName::Ip(record.ip)), record.encode());
    }

    /// The command that starts the agent of a node.
    pub(crate) fn agent_command(&self, node: &Host) -> Command {
        let data = node.data_folder().unwrap();
        let mut command = node.command(env!("CARGO_BIN_EXE_landbridge-agent")).unwrap();
        command.args(["--cluster", "a", "--cluster-id", "1", "--node", node.name(), "--uplink", "eth0"]);
        command.args(["--kvstore-endpoint", &self.endpoint, "--log", "info"]);
        command.arg("--socket").arg(data.join("agent.sock"));
        command.arg("--state-dir").arg(data.join("agent"));
        command.arg("--bpf-dir").arg(node.bpf_folder().unwrap());
        command.arg("--cgroup").arg(node.cgroup());
        command
    }

    /// Starts the agent of a node and waits until it answers.
    pub(crate) fn start_agent(&self, node: &str) -> Agent {
        let node = self.host(node);
        let process = node.spawn("agent", self.agent_command(&node)).unwrap();
        let agent = Agent { process, socket: node.data_folder().unwrap().join("agent.sock"), node };
        agent.until_ready();
        agent
    }

    /// Has the plugin wire a pod and publishes its address.
    pub(crate) fn add_pod(&self, agent: &Agent, pod: &str) -> Ipv4Addr {
        self.publish_pod(pod);
        let result = agent.cni(self, "ADD", pod).unwrap();
        let address = v4(result["ips"][0]["address"].as_str().unwrap().strip_suffix("/32").unwrap());
        self.publish_address(pod, address);
        address
    }
}

impl Agent {
    /// Waits until the agent serves its node.
    pub(crate) fn until_ready(&self) {
        until("the agent", || {
            let (code, answer) = self.run_cni(&self.config(""), [("CNI_COMMAND", "STATUS")]);
            (code == 0).then_some(()).or_else(|| {
                assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["code"], 50);
                None
            })
        });
    }

    fn config(&self, more: &str) -> String {
        let socket = self.socket.display();
        format!(
            r#"{{"cniVersion":"1.1.0","name":"landbridge","type":"landbridge-cni","agentSocket":"{socket}"{more}}}"#
        )
    }

    fn run_cni<'a>(
        &self,
        config: &str,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (i32, Vec<u8>) {
        let mut command = self.node.command(env!("CARGO_BIN_EXE_landbridge-cni")).unwrap();
        command.envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut plugin = command.spawn().unwrap();
        plugin.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let Output { status, stdout, .. } = plugin.wait_with_output().unwrap();
        (status.code().unwrap(), stdout)
    }

    /// Runs the plugin for the interface eth0 of a pod: what it answers, as an error if it says that it failed.
    pub(crate) fn cni(&self, world: &World, command: &str, pod: &str) -> Result<Value, Value> {
        self.cni_with(world, command, pod, "")
    }

    /// The same, with more in the network configuration.
    pub(crate) fn cni_with(
        &self,
        world: &World,
        command: &str,
        pod: &str,
        more: &str,
    ) -> Result<Value, Value> {
        self.call(world, command, &format!("container-{pod}"), pod, more)
    }

    /// The same for another container id than the pod's own.
    pub(crate) fn cni_as(
        &self,
        world: &World,
        command: &str,
        container: &str,
        pod: &str,
    ) -> Result<Value, Value> {
        self.call(world, command, container, pod, "")
    }

    fn call(
        &self,
        world: &World,
        command: &str,
        container: &str,
        pod: &str,
        more: &str,
    ) -> Result<Value, Value> {
        let namespace = world.host(pod).namespace_path().display().to_string();
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={pod}");
        let (code, answer) = self.run_cni(
            &self.config(more),
            [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", container),
                ("CNI_NETNS", &namespace),
                ("CNI_IFNAME", "eth0"),
                ("CNI_ARGS", &arguments),
                ("CNI_PATH", "/opt/cni/bin"),
            ],
        );
        let answer = if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer).unwrap() };
        assert_eq!(code == 0, answer.get("code").is_none(), "{answer}");
        if code == 0 { Ok(answer) } else { Err(answer) }
    }

    /// The endpoints that are on disk.
    pub(crate) fn kept_endpoints(&self) -> usize {
        let folder = self.node.data_folder().unwrap().join("agent/endpoints");
        folder.read_dir().unwrap().filter(|entry| has_suffix(&entry.as_ref().unwrap().path())).count()
    }

    /// The pins of the programs that guard the pods' interfaces.
    pub(crate) fn attached_programs(&self) -> Vec<PathBuf> {
        let files = |folder: PathBuf| folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let versions = files(self.node.bpf_folder().unwrap());
        let folders = versions.flat_map(|version| files(version.join("endpoints")));
        let mut pins: Vec<_> = folders.flat_map(files).collect();
        pins.sort();
        pins
    }

    /// The interfaces of the node that lead to pods.
    pub(crate) fn pod_interfaces(&self) -> Vec<String> {
        let links = self.node.run("ip", ["-json", "link", "show", "type", "veth"]).unwrap();
        let links: Vec<Value> = serde_json::from_slice(&links.stdout).unwrap();
        let names = links.iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name != "eth0").collect()
    }

    /// The routes of the node, without those that the lab made.
    pub(crate) fn routes(&self) -> String {
        let routes = self.node.run("ip", ["route", "show", "proto", "76"]).unwrap();
        String::from_utf8(routes.stdout).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent of {} said:\n{}", self.node.name(), self.process.log());
        }
    }
}

fn has_suffix(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

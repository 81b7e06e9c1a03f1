//! The main job from end to end: two clusters become one network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Deployment, Impairment};
use serde_json::Value;

use crate::mesh::{Mesh, POLL, TIMEOUT, WEB_PORT, both_answer, failures};

/// "Policy denied", by Cilium's number.
const POLICY_DENIED: u64 = 133;
/// Requests that show a steady state: a second of them.
const ENOUGH: usize = 50;

#[test]
fn two_clusters_become_one_network() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let mut mesh = Mesh::connected("packets");
    records_are_read_by_etcdctl(&mesh);
    pods_are_reached_by_both_of_their_addresses(&mesh);
    service_is_answered_by_both(&mesh);
    policy_drops_one_client_and_lets_the_other_pass(&mesh);
    identity_travels_in_the_tunnel(&mesh);
    traffic_leaves_a_dead_cluster_and_returns(&mut mesh);
}

#[test]
fn killing_agents_and_apiservers_in_turn_fails_no_request() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::connected("kill");
    let loads = [("a", "client-a1"), ("b", "client-b2")].map(|(cluster, pod)| {
        let deployment = if cluster == "a" { &mesh.a } else { &mesh.b };
        mesh.load(deployment.pod(pod).unwrap().host(), mesh.web_of(cluster))
    });
    let start = SystemTime::now();
    for load in &loads {
        load.wait(start, "both clusters answer", |seen| both_answer(seen, ENOUGH));
    }
    for deployment in [&mut mesh.a, &mut mesh.b] {
        deployment.restart_apiserver().unwrap();
        deployment.restart_agent(0).unwrap();
        deployment.restart_agent(1).unwrap();
    }
    let restarted = SystemTime::now();
    for load in &loads {
        // Twice the time in which a node that does not answer would be taken out.
        load.wait(restarted, "requests go on", |seen| both_answer(seen, 4 * ENOUGH));
        assert!(failures(&load.since(start)).is_empty(), "{:?}", failures(&load.since(start)));
    }
    // And what comes up again is whole: new records still flow.
    for cluster in ["a", "b"] {
        eventually("both are synced after the kills", || {
            let status = mesh.status(cluster);
            status["peers"][0]["state"] == "synced" && status["problems"].as_array().unwrap().is_empty()
        });
    }
}

#[test]
fn clusters_part_and_join_again() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::connected("part");
    let client = mesh.a.pod("client-a1").unwrap().host();
    let web = SocketAddr::new(mesh.b.pod("web-b1").unwrap().address(), WEB_PORT);
    assert!(failures(&mesh.ask(client, web, 1)).is_empty());

    let parted = mesh.clusterctl(&["disconnect", "a", "b"]);
    assert!(parted.status.success(), "{parted:?}");
    eventually("pods of the other cluster are out of reach", || {
        failures(&mesh.ask(client, web, 1)).len() == 1
    });
    let service = mesh.web_of("a");
    eventually("the service is a's alone", || {
        let answers = mesh.ask(client, service, 20);
        answers.iter().all(|request| request.cluster() == Some("a"))
    });

    let joined = mesh.clusterctl(&["connect", "a", "b"]);
    assert!(joined.status.success(), "{joined:?}");
    assert!(failures(&mesh.ask(client, web, 1)).is_empty(), "connected means that packets cross");
    assert!(both_answer(&mesh.ask(client, service, 100), 100).is_some());
}

fn records_are_read_by_etcdctl(mesh: &Mesh) {
    let admin = Credentials::admin(&mesh.a);
    let names = admin.get(&mesh.a, &["--prefix", "--keys-only", "cilium/state/"]).unwrap();
    for key in ["cilium/state/nodes/v1/a/a1", "cilium/state/services/v1/a/shop/web"] {
        assert!(names.lines().any(|line| line == key), "no {key} in {names}");
    }
    let service = admin.get(&mesh.a, &["--print-value-only", "cilium/cache/services/v1/b/shop/web"]).unwrap();
    let service: Value = serde_json::from_str(&service).unwrap();
    assert_eq!((&service["cluster"], &service["clusterID"]), (&"b".into(), &2.into()), "{service}");

    let peer = Credentials::of_peer(&mesh.b, "a");
    assert!(peer.get(&mesh.a, &["--prefix", "cilium/state/"]).unwrap().contains("web"));
    for elsewhere in
        ["cilium/cache/", "landbridge/local/", "landbridge/config/", "cilium/", "cilium/cluster-config/"]
    {
        let refused = peer.get(&mesh.a, &["--prefix", elsewhere]).unwrap_err();
        assert!(refused.contains("permission denied"), "{elsewhere}: {refused}");
    }
    let refused = peer.etcdctl(&mesh.a, &["put", "cilium/state/nodes/v1/a/a1", "{}"]).unwrap_err();
    assert!(refused.contains("permission denied"), "{refused}");
    // The certificate is a's, so that b's own store does not know it.
    peer.get(&mesh.b, &["--prefix", "cilium/state/"]).unwrap_err();
}

fn pods_are_reached_by_both_of_their_addresses(mesh: &Mesh) {
    let (client, web) = (mesh.a.pod("client-a1").unwrap(), mesh.b.pod("web-b2").unwrap());
    let families: Vec<bool> = web.addresses().iter().map(IpAddr::is_ipv4).collect();
    assert_eq!(families, [true, false], "{:?}", web.addresses());
    for address in web.addresses() {
        let answers = mesh.ask(client.host(), SocketAddr::new(*address, WEB_PORT), 10);
        assert!(failures(&answers).is_empty(), "{address}: {answers:?}");
    }
    // Gateways of the other cluster's pods, a node's own addresses, and who is outside and knows no way to any pod: it answers
    // the node.
    for target in ["10.2.2.1", "fd10:2:2::1", "172.30.2.2", "fd30:2::2", "172.30.1.254", "fd30:1::fe"] {
        let pong = client.host().run("ping", ["-c", "1", "-W", "5", target]).unwrap();
        assert!(pong.status.success(), "{target}: {}", String::from_utf8_lossy(&pong.stdout));
    }
}

fn service_is_answered_by_both(mesh: &Mesh) {
    for (cluster, deployment) in [("a", &mesh.a), ("b", &mesh.b)] {
        let client = deployment.pod(&format!("client-{cluster}1")).unwrap();
        let answers = mesh.ask(client.host(), mesh.web_of(cluster), 100);
        assert!(failures(&answers).is_empty(), "{answers:?}");
        for pod in ["web-a1", "web-a2", "web-b1", "web-b2"] {
            let by_pod =
                answers.iter().filter(|request| request.answer.as_ref().is_ok_and(|(name, _)| name == pod));
            assert!(by_pod.count() > 0, "{pod} answered none of {} requests of {cluster}", answers.len());
        }
    }
}

fn policy_drops_one_client_and_lets_the_other_pass(mesh: &Mesh) {
    let vault = SocketAddr::new(mesh.b.pod("vault").unwrap().address(), WEB_PORT);
    let before = mesh.dropped("b", POLICY_DENIED);
    let allowed = mesh.ask(mesh.a.pod("client-a1").unwrap().host(), vault, 5);
    assert!(failures(&allowed).is_empty(), "{allowed:?}");
    let refused = mesh.ask(mesh.b.pod("client-b1").unwrap().host(), vault, 5);
    assert_eq!(failures(&refused).len(), 5, "{refused:?}");
    eventually("the drops are counted", || mesh.dropped("b", POLICY_DENIED) >= before + 5);
}

fn identity_travels_in_the_tunnel(mesh: &Mesh) {
    let (client, vault) = (mesh.a.pod("client-a1").unwrap(), mesh.b.pod("vault").unwrap());
    let key = format!("cilium/state/ip/v1/default/{}", client.address());
    let record = Credentials::admin(&mesh.a).get(&mesh.a, &["--print-value-only", &key]).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();

    let node = mesh.lab.host("b2").unwrap();
    let file = node.data_folder().unwrap().join("tunnel.pcap");
    let capture = node.capture("eth0", &file).unwrap();
    let answers = mesh.ask(client.host(), SocketAddr::new(vault.address(), WEB_PORT), 1);
    capture.stop().unwrap();
    assert!(failures(&answers).is_empty(), "{answers:?}");

    let (near, far) = (client.address().to_string(), vault.address().to_string());
    let tunnelled = tunnelled_packets(&fs::read(file).unwrap());
    let of_client: Vec<&Tunnelled> = tunnelled
        .iter()
        .filter(|packet| packet.source.to_string() == near && packet.destination.to_string() == far)
        .collect();
    assert!(!of_client.is_empty(), "no packet from {near} to {far} among {}", tunnelled.len());
    for packet in of_client {
        assert_eq!(u64::from(packet.vni), record["ID"].as_u64().unwrap());
    }
}

fn traffic_leaves_a_dead_cluster_and_returns(mesh: &mut Mesh) {
    let load = mesh.load(mesh.a.pod("client-a2").unwrap().host(), mesh.web_of("a"));
    let start = SystemTime::now();
    load.wait(start, "both clusters answer", |seen| both_answer(seen, ENOUGH));

    let link = mesh.lab.link("b").unwrap();
    let cut = SystemTime::now();
    link.set_both(Impairment { cut: true, ..Impairment::NONE }).unwrap();
    mesh.b.kill().unwrap();
    let limit = cut + Duration::from_secs(5);
    load.wait(limit, "a alone goes on", |seen| (seen.len() >= ENOUGH).then_some(()));
    for request in load.since(limit) {
        assert_eq!(request.cluster(), Some("a"), "{request:?}");
    }

    // As after a power failure: what a cluster runs is up before its way to others is.
    mesh.b.bring_back().unwrap();
    link.clear().unwrap();
    let back = SystemTime::now();
    load.wait(back, "b answers again", |seen| both_answer(seen, ENOUGH));
    assert!(failures(&load.since(limit)).is_empty(), "{:?}", failures(&load.since(limit)));
}

/// Waits until `look` is true.
fn eventually(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !look() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        thread::sleep(POLL);
    }
}

/// What a client of a cluster's store shows and checks.
struct Credentials {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Credentials {
    fn admin(cluster: &Deployment) -> Self {
        let pki = cluster.data().join("pki");
        Self { ca: pki.join("ca.crt"), certificate: pki.join("admin.crt"), key: pki.join("admin.key") }
    }

    /// What `reader` reads `peer` with.
    fn of_peer(reader: &Deployment, peer: &str) -> Self {
        let folder = reader.data().join("peers").join(peer);
        let file = |name: &str| folder.join(name);
        Self { ca: file("ca.pem"), certificate: file("certificate.pem"), key: file("key.pem") }
    }

    fn get(&self, cluster: &Deployment, args: &[&str]) -> Result<String, String> {
        self.etcdctl(cluster, &[&["get"], args].concat())
    }

    fn etcdctl(&self, cluster: &Deployment, args: &[&str]) -> Result<String, String> {
        let node = cluster.nodes().next().unwrap();
        let mut command: Command = node.command("etcdctl").unwrap();
        let endpoint = format!("https://{}:2379", node.addresses().unwrap()[0]);
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint, "--command-timeout=5s"]);
        command.args([
            "--cacert",
            &path(&self.ca),
            "--cert",
            &path(&self.certificate),
            "--key",
            &path(&self.key),
        ]);
        let output = command.args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

/// An IPv4 packet inside of VXLAN.
#[derive(Debug)]
struct Tunnelled {
    vni: u32,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

/// The tunnelled packets of a pcap file of Ethernet frames (RFC 7348, section 5).
fn tunnelled_packets(pcap: &[u8]) -> Vec<Tunnelled> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    const ETHERNET: usize = 14;
    const VXLAN_PORT: [u8; 2] = 8472u16.to_be_bytes();
    let mut rest = &pcap[FILE_HEADER..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (frame, after) = rest[RECORD_HEADER..].split_at(len);
        rest = after;
        let is_udp = frame[12..14] == [8, 0] && frame[ETHERNET + 9] == 17;
        let udp = ETHERNET + usize::from(frame[ETHERNET] & 15) * 4;
        if !is_udp || frame[udp + 2..udp + 4] != VXLAN_PORT {
            continue;
        }
        let (vxlan, inner) = frame[udp + 8..].split_at(8);
        let ip = &inner[ETHERNET..];
        if inner[12..14] != [8, 0] {
            continue;
        }
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        let vni = u32::from_be_bytes(vxlan[4..].try_into().unwrap()) >> 8;
        found.push(Tunnelled { vni, source: address(12), destination: address(16) });
    }
    found
}

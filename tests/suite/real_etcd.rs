//! The etcd that others run, on a host of the lab: the peer of the tests to come.

use std::process::Command;
use std::time::{Duration, Instant};

use landbridge_lab::requirement::{Requirement, etcd, met};
use landbridge_lab::{Host, Lab, LabName, LabSpec};

fn etcdctl(host: &Host, endpoint: &str, args: &[&str]) -> Result<String, String> {
    let mut command = host.command("etcdctl").unwrap();
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint, "--command-timeout=2s"]).args(args);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// etcdctl waits for a member that is starting, but not for one that refuses connections.
fn until_healthy(host: &Host, endpoint: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = etcdctl(host, endpoint, &["endpoint", "health"]) {
        assert!(Instant::now() < deadline, "etcd was not healthy after 30 s: {error}");
    }
}

#[test]
fn etcd_keeps_an_acknowledged_write_over_a_kill_and_serves_the_other_cluster() {
    if !met(&[Requirement::Namespaces, Requirement::Etcd]) {
        return;
    }
    let lab = Lab::start(LabSpec::new(LabName::unique("etcd").unwrap()).with_clusters(2, 1, 0)).unwrap();
    let (server, client) = (lab.host("a1").unwrap(), lab.host("b1").unwrap());
    let endpoint = format!("http://{}:2379", server.addresses().unwrap()[0]);
    let mut command: Command = server.command(etcd().unwrap()).unwrap();
    command.arg("--data-dir").arg(server.data_folder().unwrap());
    command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
    let mut etcd = server.spawn("etcd", command).unwrap();

    until_healthy(&client, &endpoint);
    assert_eq!(etcdctl(&client, &endpoint, &["put", "key", "value"]).unwrap(), "OK\n");
    etcd.restart().unwrap();
    until_healthy(&client, &endpoint);
    assert_eq!(etcdctl(&client, &endpoint, &["get", "key"]).unwrap(), "key\nvalue\n");

    etcd.pause().unwrap();
    etcdctl(&client, &endpoint, &["get", "key"]).unwrap_err();
    etcd.resume().unwrap();
    until_healthy(&client, &endpoint);
}

//! The plugin as a runtime calls it.

use std::process::Stdio;

use landbridge_lab::requirement::{Requirement, met};

use crate::world::{World, until};

#[test]
fn without_an_agent_add_is_to_be_tried_again_and_del_still_works() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("cni-none");
    let mut agent = world.start_agent("a1");
    world.add_pod(&agent, "a1p1");
    assert!(agent.process.terminate(crate::world::DEADLINE).unwrap().success());
    assert!(!agent.socket.exists(), "an agent that ends in order takes its socket with it");

    let error = agent.cni(&world, "ADD", "a1p2").unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert_eq!(error["cniVersion"], "1.1.0");
    agent.cni(&world, "DEL", "a1p1").unwrap();
    assert_eq!(agent.pod_interfaces(), [""; 0]);

    // The address of the pod that ended without its agent is free once the agent is back.
    assert_eq!(agent.kept_endpoints(), 1);
    agent.process.restart().unwrap();
    agent.until_ready();
    until("the endpoint to be dropped", || (agent.kept_endpoints() == 0).then_some(()));
}

#[test]
fn add_waits_for_the_identity_and_a_second_one_is_refused() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("cni-add");
    let agent = world.start_agent("a1");
    std::thread::scope(|scope| {
        let add = scope.spawn(|| agent.cni(&world, "ADD", "a1p1"));
        world.publish_pod("a1p1");
        let result = add.join().unwrap().unwrap();
        assert_eq!(result["ips"][0]["gateway"], "10.1.1.1");
        assert_eq!(result["interfaces"][0]["name"], agent.pod_interfaces()[0].as_str());
    });
    let error = agent.cni(&world, "ADD", "a1p1").unwrap_err();
    assert_eq!(error["code"], 102, "{error}");
    assert_eq!((agent.kept_endpoints(), agent.pod_interfaces().len()), (1, 1), "the first one stays");

    let previous = r#","prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.1.1.3/32","interface":1}]}"#;
    agent.cni_with(&world, "CHECK", "a1p1", previous).unwrap();
    let other = previous.replace("10.1.1.3", "10.1.1.9");
    let error = agent.cni_with(&world, "CHECK", "a1p1", &other).unwrap_err();
    assert_eq!(error["code"], 103, "{error}");

    for _ in 0..2 {
        agent.cni(&world, "DEL", "a1p1").unwrap();
        assert_eq!((agent.kept_endpoints(), agent.pod_interfaces().len()), (0, 0));
        assert_eq!(agent.routes().lines().filter(|route| route.starts_with("10.1.1.3")).count(), 0);
    }
}

#[test]
fn an_add_that_fails_half_way_leaves_nothing() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("cni-undo");
    let agent = world.start_agent("a1");
    world.publish_pod("a1p1");
    // A default route is there already, so that the last step inside of the container fails.
    let pod = world.host("a1p1");
    for args in [
        &["link", "add", "other", "type", "bridge"][..],
        &["link", "set", "other", "up"],
        &["route", "add", "default", "dev", "other"],
    ] {
        assert!(pod.run("ip", args).unwrap().status.success());
    }
    let error = agent.cni(&world, "ADD", "a1p1").unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    assert!(error["details"].as_str().unwrap().contains("default route"), "{error}");
    assert_eq!((agent.kept_endpoints(), agent.pod_interfaces().len()), (0, 0));
    assert!(!pod.run("ip", ["link", "show", "eth0"]).unwrap().status.success());

    assert!(pod.run("ip", ["link", "del", "other"]).unwrap().status.success());
    world.add_pod(&agent, "a1p1");

    // What the runtime does not know any more is collected.
    agent.cni_with(&world, "GC", "a1p1", r#","cni.dev/valid-attachments":[]"#).unwrap();
    assert_eq!((agent.kept_endpoints(), agent.pod_interfaces().len()), (0, 0));
}

#[test]
fn an_agent_names_all_that_its_machine_lacks_and_changes_nothing() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("cni-lack");
    let node = world.host("a1");
    let mut command = world.agent_command(&node);
    command.args(["--bpf-dir", "/tmp", "--cgroup", "/tmp"]).stderr(Stdio::piped());
    // Flags that are given twice are a mistake of the caller's.
    assert_eq!(command.output().unwrap().status.code(), Some(2));

    let mut command = node.command(env!("CARGO_BIN_EXE_landbridge-agent")).unwrap();
    command.args(["--cluster", "a", "--cluster-id", "1", "--node", "a1", "--uplink", "eth7"]);
    command.args([
        "--kvstore-endpoint",
        "http://172.30.1.1:2379",
        "--bpf-dir",
        "/tmp/bpf",
        "--cgroup",
        "/tmp",
    ]);
    command.arg("--state-dir").arg(node.data_folder().unwrap().join("none"));
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for missing in ["cgroup v2 at /tmp", "bpf filesystem at /tmp/bpf", "interface eth7"] {
        assert!(words.contains(missing), "{words}");
    }
    assert!(!node.run("ip", ["link", "show", "lb_vxlan"]).unwrap().status.success());
    assert!(!node.data_folder().unwrap().join("none").exists());

    let first = world.start_agent("a1");
    let output = world.agent_command(&node).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("locked by another agent"), "{words}");
    first.until_ready();
}

//! What crashes, wiped disks and other people leave behind.

use std::fs;

use landbridge_lab::requirement::{Requirement, met};

use crate::world::{Agent, DEADLINE, World, until, v4};

fn runs(agent: &Agent, args: &[&str]) {
    let output = agent.node.run("ip", args).unwrap();
    assert!(output.status.success(), "ip {args:?}: {output:?}");
}

#[test]
fn an_add_that_is_refused_leaves_the_pod_alone_that_was_there() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("left-other");
    let agent = world.start_agent("a1");
    world.add_pod(&agent, "a1p1");
    world.publish_pod("a1p2");
    // Another pod comes with the container id of the first one.
    let error = agent.cni_as(&world, "ADD", "container-a1p1", "a1p2").unwrap_err();
    assert!(error["details"].as_str().unwrap().contains("belongs to pod shop/a1p1"), "{error}");
    assert_eq!((agent.kept_endpoints(), agent.pod_interfaces().len()), (1, 1));
    let previous = r#","prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.1.1.3/32"}]}"#;
    agent.cni_with(&world, "CHECK", "a1p1", previous).unwrap();
}

#[test]
fn an_address_whose_add_ended_with_the_agent_is_free_again() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("left-half");
    let mut agent = world.start_agent("a1");
    world.add_pod(&agent, "a1p1");
    agent.process.kill().unwrap();
    // As if the agent had been killed between the two calls of an ADD, whose plugin then found nobody to undo it with.
    let folder = agent.node.data_folder().unwrap().join("agent/endpoints");
    let mut record: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("1.json")).unwrap()).unwrap();
    record["id"] = 2.into();
    record["attachment"]["containerId"] = "gone".into();
    record["address"] = "10.1.1.4".into();
    record["hostInterface"] = "lb000000000002".into();
    record["activation"] = serde_json::Value::Null;
    fs::write(folder.join("2.json"), record.to_string()).unwrap();
    agent.process.restart().unwrap();
    agent.until_ready();
    until("the address to be released", || (agent.kept_endpoints() == 1).then_some(()));
}

#[test]
fn pods_of_an_agent_that_lost_its_memory_are_fenced_and_their_addresses_rest() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("left-wiped");
    let mut agent = world.start_agent("a1");
    assert_eq!(world.add_pod(&agent, "a1p1"), v4("10.1.1.3"));
    let attached = agent.attached_programs();
    assert!(!attached.is_empty());
    agent.process.kill().unwrap();
    fs::remove_dir_all(agent.node.data_folder().unwrap().join("agent")).unwrap();
    agent.process.restart().unwrap();
    agent.until_ready();
    // Its programs let nothing through that is no endpoint's, and another pod gets another address.
    assert_eq!(agent.attached_programs(), attached);
    assert!(!world.host("a1p1").reaches(agent.node.addresses().unwrap()[0]).unwrap());
    assert_eq!(world.add_pod(&agent, "a1p2"), v4("10.1.1.4"));
    agent.cni(&world, "DEL", "a1p1").unwrap();
    assert_eq!((agent.pod_interfaces().len(), agent.attached_programs().len()), (1, attached.len()));
}

#[test]
fn an_address_is_not_the_next_pods_while_the_store_has_it_for_the_last_one() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("left-rest");
    let mut agent = world.start_agent("a1");
    assert_eq!(world.add_pod(&agent, "a1p1"), v4("10.1.1.3"));
    agent.cni(&world, "DEL", "a1p1").unwrap();
    agent.process.kill().unwrap();
    agent.process.restart().unwrap();
    agent.until_ready();
    assert_eq!(world.add_pod(&agent, "a1p2"), v4("10.1.1.4"));
}

#[test]
fn the_route_of_somebody_else_stays_and_ours_comes_once_it_is_gone() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("left-route");
    let node = world.host("a1");
    let foreign = ["route", "add", "10.1.2.0/24", "dev", "eth0", "proto", "static"];
    assert!(node.run("ip", foreign).unwrap().status.success());
    let agent = world.start_agent("a1");
    until("the agent to complain", || agent.process.log().contains("route not changed").then_some(()));
    let routes = agent.node.run("ip", ["route", "show", "10.1.2.0/24"]).unwrap();
    let routes = String::from_utf8(routes.stdout).unwrap();
    assert!(routes.contains("proto static") && routes.lines().count() == 1, "{routes}");
    runs(&agent, &["route", "del", "10.1.2.0/24", "proto", "static"]);
    until("the agent's own route", || agent.routes().contains("10.1.2.0/24 dev lb_vxlan").then_some(()));
}

#[test]
fn an_agent_whose_overlay_is_taken_away_ends_and_makes_it_anew_when_it_starts() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("left-overlay");
    let (mut one, two) = (world.start_agent("a1"), world.start_agent("a2"));
    let (_near, far) = (world.add_pod(&one, "a1p1"), world.add_pod(&two, "a2p1"));
    runs(&one, &["link", "del", "lb_vxlan"]);
    let ended = one.process.wait(DEADLINE).unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(one.process.log().contains("lb_vxlan is gone"), "{}", one.process.log());
    one.process.restart().unwrap();
    one.until_ready();
    let pod = world.host("a1p1");
    until("pods to reach each other again", || pod.reaches(far.into()).unwrap().then_some(()));
}

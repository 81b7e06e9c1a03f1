//! Pods of two nodes.

use std::net::Ipv4Addr;
use std::time::Duration;

use landbridge_kvstore_schema::{ClusterName, NodeReport, ObjectName, OwnRecord, PathReport};
use landbridge_lab::Direction;
use landbridge_lab::requirement::{Requirement, met};

use crate::ping_pong::PingPong;
use crate::world::{World, until, v4};

/// What a pod that only says what it may is never dropped for: Cilium's numbers of an invalid source and of an
/// unsupported protocol, such as what a kernel says in IPv6 by itself.
const NOISE: [u8; 2] = [132, 139];

fn until_reached(world: &World, from: &str, to: Ipv4Addr) {
    let host = world.host(from);
    until(&format!("{from} to reach {to}"), || host.reaches(to.into()).unwrap().then_some(()));
}

fn report(world: &World, node: &str) -> Option<NodeReport> {
    let key = NodeReport::key(&ObjectName::new(node).unwrap()).to_string();
    world.get(&key).map(|value| NodeReport::decode(&key, &value).unwrap())
}

fn path(report: &NodeReport, node: &str) -> Option<PathReport> {
    report.paths.get(&ClusterName::new("a").unwrap())?.get(&ObjectName::new(node).unwrap()).copied()
}

#[test]
fn traffic_lives_through_agents_and_store_that_do_not() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let mut world = World::start("mesh");
    let (mut one, mut two) = (world.start_agent("a1"), world.start_agent("a2"));
    let (near, neighbour, far) =
        (world.add_pod(&one, "a1p1"), world.add_pod(&one, "a1p2"), world.add_pod(&two, "a2p1"));
    assert_eq!([near, neighbour, far], [v4("10.1.1.3"), v4("10.1.1.4"), v4("10.1.2.3")]);
    until_reached(&world, "a1p1", far);
    until_reached(&world, "a2p1", near);
    until_reached(&world, "a1p1", neighbour);
    until_reached(&world, "a1", far);
    assert!(
        one.routes().contains("10.1.2.0/24 dev lb_vxlan scope link src 10.1.1.1 mtu 1450"),
        "{}",
        one.routes()
    );

    let (from, to) = (world.host("a1p1"), world.host("a2p1"));
    let connection = PingPong::start(&from, &to, far);
    connection.goes_on();
    for agent in [&mut one, &mut two] {
        agent.process.kill().unwrap();
        connection.goes_on();
        agent.process.restart().unwrap();
        agent.until_ready();
        connection.goes_on();
    }
    // Whoever starts again takes over what is there, and a pod that comes now is served.
    let late = world.add_pod(&two, "a2p2");
    until_reached(&world, "a1p2", late);

    world.etcd.kill().unwrap();
    one.process.restart().unwrap();
    one.until_ready();
    let previous = r#","prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.1.1.3/32"}]}"#;
    one.cni_with(&world, "CHECK", "a1p1", previous).unwrap();
    connection.goes_on();
    until_reached(&world, "a1p2", late);
    assert!(one.process.log().contains("store lost"), "{}", one.process.log());

    // A pod that ends while the store is gone is gone.
    one.cni(&world, "DEL", "a1p2").unwrap();
    assert!(!world.host("a2p2").reaches(neighbour.into()).unwrap());
    connection.goes_on();

    world.etcd.restart().unwrap();
    until("the agent to find the store again", || {
        report(&world, "a1").filter(|report| report.endpoints == 1)
    });
    let drops = report(&world, "a1").unwrap().drops;
    assert!(drops.iter().all(|drop| !NOISE.contains(&drop.reason)), "{drops:?}");
    connection.goes_on();
    let longest = connection.stop();
    assert!(longest < Duration::from_secs(1), "the longest round took {longest:?}");

    assert!(one.process.terminate(crate::world::DEADLINE).unwrap().success());
    assert!(
        world.host("a1p1").reaches(far.into()).unwrap(),
        "an agent that ends in order leaves traffic alone"
    );
    until("the report of a node without agent to go", || report(&world, "a1").is_none().then_some(()));
}

#[test]
fn nodes_report_who_answers_over_the_path_that_pods_use() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("health");
    let (_one, mut two) = (world.start_agent("a1"), world.start_agent("a2"));
    let reachable = |wanted: bool| {
        until(&format!("a2 to be reachable: {wanted}"), || {
            report(&world, "a1")
                .filter(|report| path(report, "a2").is_some_and(|path| path.reachable == wanted))
        })
    };
    let report = until("the path to a2", || {
        report(&world, "a1")
            .filter(|report| path(report, "a2").is_some_and(|path| path.round_trip_micros > 0))
    });
    assert!(report.applied_revision > 0, "{report:?}");
    reachable(true);

    // The other agent takes no part in it.
    two.process.kill().unwrap();
    let link = world.lab.link("a2").unwrap();
    link.cut(Direction::Outbound).unwrap();
    reachable(false);
    link.clear().unwrap();
    reachable(true);
}

use std::time::Duration;

use landbridge_kvstore_schema::{MaxClusters, PathReport};

use super::*;
use crate::peers::admit::tests::node;
use crate::peers::state::{Outage, Phase};

const NOW: i64 = 1_790_000_000;

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

/// Paris with the node n1, connected to lyon, all well.
fn facts() -> Facts {
    let now = Instant::now();
    let node = node("n1", "172.30.1.1", "10.1.1.0/24");
    let path = PathReport { reachable: true, round_trip_micros: 200 };
    let report = NodeReport {
        synced: vec![cluster("lyon")],
        paths: [(cluster("lyon"), [(name("n9"), path)].into())].into(),
        endpoints: 3,
        ..NodeReport::default()
    };
    let record = Peer {
        id: 2,
        endpoints: vec![],
        ca_certificate: String::new(),
        pod_ranges: vec![],
        node_addresses: vec![],
        unconfirmed_until: None,
    };
    let mut state = PeerState::new();
    state.phase = Phase::Synced;
    state.heard = Some(now);
    state.counts.admitted = [(Kind::Ips, 7)].into();
    Facts {
        cluster: cluster("paris"),
        id: ClusterId::new(1, MaxClusters::Of255).unwrap(),
        revision: Ok(12),
        publishes: true,
        nodes: [(name("n1"), node)].into(),
        reports: [(name("n1"), report)].into(),
        peers: [(cluster("lyon"), PeerFacts { record, state, certificate_expires: Some(NOW + 90 * 86_400) })]
            .into(),
        services: [].into(),
        remote_backends: [].into(),
        ca_expires: NOW + 3000 * 86_400,
        found: vec![],
        now_seconds: NOW,
        now: now + Duration::from_millis(300),
    }
}

#[test]
fn a_mesh_that_is_well_has_no_problem() {
    let status = response(&facts());
    assert_eq!(status.problems, Vec::<String>::new());
    let (node, peer) = (&status.nodes[0], &status.peers[0]);
    assert_eq!(
        (node.address.as_str(), node.pod_range.as_str(), node.endpoints),
        ("172.30.1.1", "10.1.1.0/24", 3)
    );
    assert!(node.reporting && node.paths[0].reachable && node.paths[0].round_trip_micros == 200);
    assert_eq!((peer.state.as_str(), peer.message.as_str(), peer.addresses), ("synced", "", 7));
    assert!(peer.confirmed && (300..1000).contains(&peer.heard_millis_ago));
}

#[test]
fn everything_that_is_wrong_is_a_sentence() {
    let only = |change: fn(&mut Facts), expected: &str| {
        let mut facts = facts();
        change(&mut facts);
        let problems = response(&facts).problems;
        assert!(
            problems.len() == 1 && problems[0].contains(expected),
            "{problems:?} should say {expected:?}"
        );
    };
    fn lyon(facts: &mut Facts) -> &mut PeerFacts {
        facts.peers.first_entry().unwrap().into_mut()
    }
    fn report(facts: &mut Facts) -> &mut NodeReport {
        facts.reports.first_entry().unwrap().into_mut()
    }
    only(|facts| facts.revision = Err("gone".to_owned()), "own store does not answer: gone");
    only(|facts| facts.publishes = false, "does not publish");
    only(|facts| facts.found = vec!["shop.yaml:3".to_owned()], "shop.yaml:3");
    only(|facts| facts.ca_expires = NOW + 86_400, "own CA ends in 1 days");
    only(|facts| facts.reports.clear(), "node n1: its agent does not report");
    only(|facts| report(facts).synced.clear(), "node n1 does not have all records of cluster lyon");
    only(
        |facts| report(facts).paths.values_mut().flatten().for_each(|(_, path)| path.reachable = false),
        "node n1 cannot reach node n9 of cluster lyon",
    );
    only(
        |facts| {
            let report = facts.reports[&name("n1")].clone();
            facts.reports.insert(name("n2"), report);
        },
        "reports as node n2, which the cluster does not have",
    );
    only(
        |facts| {
            let since = facts.now.checked_sub(Duration::from_secs(9)).unwrap_or(facts.now);
            lyon(facts).state.outage = Some(Outage { since, message: "refused".to_owned() });
        },
        "cluster lyon is unreachable: its store has not answered for",
    );
    only(|facts| lyon(facts).record.unconfirmed_until = Some(NOW + 60), "goes in 60 s");
    only(
        |facts| {
            let counts = &mut lyon(facts).state.counts;
            counts.refused = [("address_taken", 2)].into();
            counts.refusals = vec!["cilium/state/x: taken".to_owned()];
        },
        "cluster lyon: refused 2 of its records, such as cilium/state/x: taken",
    );
    only(|facts| lyon(facts).certificate_expires = None, "no certificate to show");
    only(|facts| lyon(facts).certificate_expires = Some(NOW - 1), "has ended");
    only(|facts| lyon(facts).certificate_expires = Some(NOW + 13 * 86_400), "ends in 13 days");
}

#[test]
fn services_have_the_backends_of_every_cluster() {
    let mut facts = facts();
    let service = NamespacedName::new("shop", "cart").unwrap();
    facts.services = [(service.clone(), LocalService { global: true, ..LocalService::default() })].into();
    facts.remote_backends = [(service.clone(), [(cluster("lyon"), 2)].into())].into();
    let backends = response(&facts).services[0].backends.clone();
    assert_eq!(backends, [("paris".to_owned(), 0), ("lyon".to_owned(), 2)].into());
    facts.services.get_mut(&service).unwrap().global = false;
    assert_eq!(response(&facts).services[0].backends, [("paris".to_owned(), 0)].into());
}

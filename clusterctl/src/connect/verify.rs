//! When two clusters are one network: decided from what their nodes measured.

use std::collections::BTreeMap;

use landbridge_apiserver_api::v1::{DescribeClusterResponse, GetStatusResponse, NodeStatus};

/// What one side says, and whom it should see.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The state of the side.
    pub(super) status: &'a GetStatusResponse,
    /// The other side.
    pub(super) other: &'a DescribeClusterResponse,
}

/// What was found when both had all of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// How many records of which kind, of both directions.
    pub(super) records: String,
    /// How many directed paths between nodes were measured.
    pub(super) paths: usize,
    /// From the fastest to the slowest.
    pub(super) round_trips: String,
}

/// Whether both sides have all of the other.
///
/// # Errors
/// What is still missing, a phrase each.
pub(super) fn verify(views: [View<'_>; 2]) -> Result<Proof, Vec<String>> {
    let mut missing = Vec::new();
    let mut round_trips = Vec::new();
    let mut records = Vec::new();
    for view in views {
        match view.records() {
            Ok(found) => records.push(found),
            Err(what) => missing.push(what),
        }
        for node in &view.status.nodes {
            match view.round_trips(node) {
                Ok(micros) => round_trips.extend(micros),
                Err(what) => missing.push(what),
            }
        }
        if view.status.nodes.is_empty() {
            missing.push(format!("cluster {} has no nodes", view.status.cluster));
        }
    }
    if !missing.is_empty() {
        return Err(missing);
    }
    let (fastest, slowest) = (round_trips.iter().min(), round_trips.iter().max());
    let millis = |micros: Option<&u32>| f64::from(*micros.unwrap_or(&0)) / 1_000.0;
    Ok(Proof {
        records: records.join(", "),
        paths: round_trips.len(),
        round_trips: format!("round trip {:.2} to {:.2} ms", millis(fastest), millis(slowest)),
    })
}

/// Nodes whose reports still tell of the other side, from a connection before this one. What they say of it proves nothing.
pub(super) fn out_of_date(views: [View<'_>; 2]) -> Vec<&str> {
    let tells_of = |node: &&NodeStatus, other: &str| {
        let reaches = node.paths.iter().any(|path| path.cluster == other);
        node.reporting && (reaches || node.synced_peers.iter().any(|peer| peer == other))
    };
    let nodes = views.into_iter().flat_map(|view| {
        let other = view.other.name.as_str();
        view.status.nodes.iter().filter(move |node| tells_of(node, other))
    });
    nodes.map(|node| node.name.as_str()).collect()
}

impl View<'_> {
    /// The records of the other side that this side's store has.
    fn records(&self) -> Result<String, String> {
        let (here, there) = (&self.status.cluster, &self.other.name);
        let Some(peer) = self.status.peers.iter().find(|peer| peer.name == *there) else {
            return Err(format!("{here} has not begun to read {there}"));
        };
        if peer.state != "synced" {
            let why = if peer.message.is_empty() { String::new() } else { format!(" ({})", peer.message) };
            return Err(format!("{here} is {} with {there}{why}", peer.state));
        }
        Ok(format!(
            "{here} has {} nodes, {} identities, {} addresses and {} services of {there}",
            peer.nodes, peer.identities, peer.addresses, peer.services
        ))
    }

    /// The round trips that a node of this side measured to every node of the other one, in microseconds.
    fn round_trips(&self, node: &NodeStatus) -> Result<Vec<u32>, String> {
        let (name, there) = (&node.name, &self.other.name);
        if !node.reporting {
            return Err(format!("the agent of {name} does not report"));
        }
        if !node.synced_peers.contains(there) {
            return Err(format!("{name} has not all records of {there} in its maps"));
        }
        let measured: BTreeMap<&str, u32> = node
            .paths
            .iter()
            .filter(|path| path.cluster == *there && path.reachable && path.round_trip_micros > 0)
            .map(|path| (path.node.as_str(), path.round_trip_micros))
            .collect();
        let unseen: Vec<&str> =
            self.other.nodes.iter().map(String::as_str).filter(|node| !measured.contains_key(node)).collect();
        if unseen.is_empty() {
            Ok(measured.into_values().collect())
        } else {
            Err(format!("no packet from {name} has come back from {}", unseen.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use landbridge_apiserver_api::v1::{Path, PeerStatus};

    use super::*;

    fn about(name: &str) -> DescribeClusterResponse {
        let nodes = [1, 2].map(|number| format!("{name}{number}")).to_vec();
        DescribeClusterResponse { name: name.to_owned(), nodes, ..DescribeClusterResponse::default() }
    }

    fn path(cluster: &str, number: u32) -> Path {
        Path {
            cluster: cluster.to_owned(),
            node: format!("{cluster}{number}"),
            reachable: true,
            round_trip_micros: 100 * number,
        }
    }

    fn status(name: &str, other: &str) -> GetStatusResponse {
        let node = |number: u32| NodeStatus {
            name: format!("{name}{number}"),
            reporting: true,
            paths: vec![path(other, 1), path(other, 2), path(name, 3)],
            synced_peers: vec![other.to_owned()],
            ..NodeStatus::default()
        };
        let peer = PeerStatus { name: other.to_owned(), state: "synced".to_owned(), ..PeerStatus::default() };
        GetStatusResponse {
            cluster: name.to_owned(),
            nodes: vec![node(1), node(2)],
            peers: vec![peer],
            ..GetStatusResponse::default()
        }
    }

    /// What is missing when cluster a looks as `change` makes it.
    fn missing(change: impl FnOnce(&mut GetStatusResponse)) -> String {
        let (mut a, b) = (status("a", "b"), status("b", "a"));
        change(&mut a);
        let views = [View { status: &a, other: &about("b") }, View { status: &b, other: &about("a") }];
        verify(views).unwrap_err().join("; ")
    }

    #[test]
    fn two_clusters_that_have_all_of_each_other_are_connected() {
        let (a, b) = (status("a", "b"), status("b", "a"));
        let views = [View { status: &a, other: &about("b") }, View { status: &b, other: &about("a") }];
        let proof = verify(views).unwrap();
        assert_eq!((proof.paths, proof.round_trips.as_str()), (8, "round trip 0.10 to 0.20 ms"));
    }

    #[test]
    fn reports_of_an_earlier_connection_are_told_from_those_of_this_one() {
        let (mut a, mut b) = (status("a", "b"), status("b", "x"));
        let stale = |a: &GetStatusResponse, b: &GetStatusResponse| {
            let views = [View { status: a, other: &about("b") }, View { status: b, other: &about("a") }];
            out_of_date(views).join(" ")
        };
        assert_eq!(stale(&a, &b), "a1 a2");
        a.nodes[0].synced_peers.clear();
        a.nodes[1].reporting = false;
        assert_eq!(stale(&a, &b), "a1", "it still has paths");
        a.nodes[0].paths.clear();
        b.nodes[1].synced_peers.push("a".to_owned());
        assert_eq!(stale(&a, &b), "b2");
    }

    #[test]
    fn whatever_is_not_there_yet_is_named() {
        assert_eq!(missing(|a| a.peers.clear()), "a has not begun to read b");
        assert_eq!(
            missing(|a| {
                a.peers[0].state = "connecting".to_owned();
                a.peers[0].message = "no route".to_owned();
            }),
            "a is connecting with b (no route)"
        );
        assert_eq!(missing(|a| a.nodes[1].reporting = false), "the agent of a2 does not report");
        assert_eq!(missing(|a| a.nodes[0].synced_peers.clear()), "a1 has not all records of b in its maps");
        assert_eq!(
            missing(|a| a.nodes[0].paths[1].reachable = false),
            "no packet from a1 has come back from b2"
        );
        assert_eq!(
            missing(|a| a.nodes[0].paths[0].round_trip_micros = 0),
            "no packet from a1 has come back from b1"
        );
        assert_eq!(missing(|a| a.nodes.clear()), "cluster a has no nodes");
    }
}

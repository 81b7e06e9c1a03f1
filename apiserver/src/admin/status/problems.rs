//! What is wrong, a sentence each.

use landbridge_kvstore_schema::ClusterName;

use super::{Facts, PeerFacts};

/// A certificate that ends this soon is a problem, in seconds.
const SOON: i64 = 14 * 24 * 3600;

/// What is wrong, the cluster itself first, then its nodes, then its peers.
pub(super) fn problems(facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = &facts.revision {
        problems.push(format!("the own store does not answer: {error}"));
    }
    if !facts.publishes {
        problems.push("this replica does not publish: it does not hold the publisher's lock".to_owned());
    }
    if let Some(when) = ends(facts.ca_expires, facts.now_seconds) {
        problems.push(format!("the certificate of the cluster's own CA {when}"));
    }
    problems.extend(facts.found.iter().cloned());
    if facts.nodes.is_empty() {
        problems.push("the cluster has no node: add a Node to its manifests".to_owned());
    }
    nodes(facts, &mut problems);
    for (name, peer) in &facts.peers {
        of_peer(facts, name, peer, &mut problems);
    }
    problems
}

fn nodes(facts: &Facts, problems: &mut Vec<String>) {
    for node in facts.nodes.keys() {
        let Some(report) = facts.reports.get(node) else {
            problems.push(format!(
                "node {node}: its agent does not report; is it running, and can it reach the store?"
            ));
            continue;
        };
        for (cluster, paths) in &report.paths {
            for (other, _) in paths.iter().filter(|(_, path)| !path.reachable) {
                problems.push(format!("node {node} cannot reach node {other} of cluster {cluster}"));
            }
        }
        let is_missing = |name: &ClusterName, peer: &PeerFacts| {
            peer.state.summary(facts.now).0 == "synced" && !report.synced.contains(name)
        };
        for (cluster, _) in facts.peers.iter().filter(|(name, peer)| is_missing(name, peer)) {
            problems.push(format!("node {node} does not have all records of cluster {cluster} yet"));
        }
    }
    for node in facts.reports.keys().filter(|node| !facts.nodes.contains_key(*node)) {
        problems.push(format!("an agent reports as node {node}, which the cluster does not have"));
    }
}

fn of_peer(facts: &Facts, name: &ClusterName, peer: &PeerFacts, problems: &mut Vec<String>) {
    let (state, message) = peer.state.summary(facts.now);
    if state != "synced" {
        problems.push(format!("cluster {name} is {state}: {message}"));
    }
    if let Some(until) = peer.record.unconfirmed_until {
        let left = until.saturating_sub(facts.now_seconds).max(0);
        problems.push(format!("cluster {name} is not confirmed and goes in {left} s; finish connecting it"));
    }
    let refused: u64 = peer.state.counts.refused.values().sum();
    if refused > 0 {
        let example = peer.state.counts.refusals.first().map(|refusal| format!(", such as {refusal}"));
        let example = example.unwrap_or_default();
        problems.push(format!("cluster {name}: refused {refused} of its records{example}"));
    }
    match peer.certificate_expires {
        None => {
            problems.push(format!("cluster {name}: there is no certificate to show to it; connect it again"));
        }
        Some(expires) => {
            if let Some(when) = ends(expires, facts.now_seconds) {
                problems.push(format!(
                    "cluster {name}: the certificate to read it with {when}; connect it again"
                ));
            }
        }
    }
}

/// When something ends, if that is soon or was.
fn ends(expires: i64, now: i64) -> Option<String> {
    let left = expires.saturating_sub(now);
    match left {
        ..=0 => Some("has ended".to_owned()),
        1..SOON => Some(format!("ends in {} days", left / (24 * 3600))),
        _ => None,
    }
}

//! Numbers of nodes: positions in the `NODES` array.
//!
//! ```text
//! free ── a node comes ──► taken ── it goes ──► given up ── the next round ──► free
//! ```
//!
//! - A node keeps its number, also when it moves to another address and over restarts of the agent.
//! - A new node gets the smallest free number.
//! - A number that is given up is free one round later, so that no entry which is still in a map points to another node meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_bpf_maps::{Address, NODES_LEN, NodeEntry, NodeNumber};

use crate::topology::{MeshNode, NodeRef};

#[derive(Clone, Debug, Default)]
pub(crate) struct NodeNumbers {
    taken: BTreeMap<NodeRef, NodeNumber>,
    /// Numbers found in the maps whose node has not been seen yet. Maps do not know names.
    found: BTreeSet<(NodeEntry, NodeNumber)>,
}

impl NodeNumbers {
    pub(crate) fn new(found: &BTreeMap<NodeNumber, NodeEntry>) -> Self {
        let found =
            found.iter().filter(|(number, entry)| **number != NodeNumber::NONE && !entry.underlay.is_none());
        Self { taken: BTreeMap::new(), found: found.map(|(number, entry)| (*entry, *number)).collect() }
    }

    /// Gives each of `nodes` its number; those that get none are returned. Numbers of other nodes are given up, unless
    /// `nodes` may not be all of them (`keep`).
    pub(crate) fn assign<'a>(&mut self, nodes: &[&'a MeshNode], keep: bool) -> Vec<&'a MeshNode> {
        for node in nodes.iter().filter(|node| !self.taken.contains_key(&node.name)).collect::<Vec<_>>() {
            let first = (entry(node), NodeNumber::NONE);
            let found = self.found.range(first..).next().copied().filter(|(found, _)| *found == first.0);
            if let Some(found) = found {
                self.found.remove(&found);
                self.taken.insert(node.name.clone(), found.1);
            }
        }
        // Taken before the others are given up: what is given up in this round is free in the next one.
        let mut in_use: BTreeSet<_> =
            self.taken.values().chain(self.found.iter().map(|(_, number)| number)).copied().collect();
        if !keep {
            let present: BTreeSet<_> = nodes.iter().map(|node| &node.name).collect();
            self.found.clear();
            self.taken.retain(|name, _| present.contains(name));
        }
        let mut next = 1;
        let mut without = Vec::new();
        for node in nodes {
            if self.taken.contains_key(&node.name) {
                continue;
            }
            while in_use.contains(&NodeNumber(next)) {
                next += 1;
            }
            if next >= NODES_LEN {
                without.push(*node);
                continue;
            }
            in_use.insert(NodeNumber(next));
            self.taken.insert(node.name.clone(), NodeNumber(next));
        }
        without
    }

    /// The number of a node; none for this node, and for one that got none.
    pub(crate) fn get(&self, node: &NodeRef) -> Option<NodeNumber> {
        self.taken.get(node).copied()
    }
}

/// The entry of `node` in the `NODES` array.
pub(crate) fn entry(node: &MeshNode) -> NodeEntry {
    NodeEntry { underlay: Address::from(node.underlay), cluster: u32::from(node.cluster_id.get()) }
}

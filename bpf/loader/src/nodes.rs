//! Nodes of the mesh by their number.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use landbridge_bpf_maps::{NodeEntry, NodeNumber};

use crate::error::MapError;
use crate::generation::{Change, Generation};
use crate::shape::NODES;

/// The `NODES` map, as [`Datapath`](crate::Datapath) lends it.
pub struct Nodes<'a> {
    pub(crate) map: &'a mut Array<MapData, NodeEntry>,
    pub(crate) generation: &'a mut Generation,
}

impl Nodes<'_> {
    /// Says where a node is. Addresses that name it are sent there from now on.
    ///
    /// # Errors
    /// [`MapError::NoSuchEntry`] if the map has no such number, or [`MapError::Kernel`].
    pub fn set(&mut self, number: NodeNumber, node: NodeEntry) -> Result<(), MapError> {
        let last = self.map.len().saturating_sub(1);
        if number == NodeNumber::NONE || number.0 > last {
            return Err(MapError::NoSuchEntry { map: NODES, index: number.0, last });
        }
        let _change = Change::of(self.generation)?;
        self.map.set(number.0, node, 0).map_err(MapError::reading(NODES))
    }

    /// Forgets a node; what is still sent to it is dropped, and what still comes from it is refused.
    ///
    /// # Errors
    /// As [`Nodes::set`].
    pub fn clear(&mut self, number: NodeNumber) -> Result<(), MapError> {
        self.set(number, NodeEntry::default())
    }

    /// All nodes that are set.
    ///
    /// # Errors
    /// [`MapError::Kernel`].
    pub fn entries(&self) -> Result<BTreeMap<NodeNumber, NodeEntry>, MapError> {
        let all = (0..).map(NodeNumber).zip(self.map.iter());
        let set = all.filter(|(_, node)| !node.as_ref().is_ok_and(|node| *node == NodeEntry::default()));
        set.map(|(number, node)| Ok((number, node.map_err(MapError::reading(NODES))?))).collect()
    }
}

//! The maps as ordinary collections, for tests.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use landbridge_bpf_maps::{
    Address, ConnectionEntry, ConnectionKey, IpcacheEntry, NodeEntry, NodeNumber, PolicyEntry, PolicyKey,
};

use crate::{Connections, Owners, Rules};

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) addresses: BTreeMap<Address, IpcacheEntry>,
    /// The first three bytes of IPv4 prefixes.
    pub(crate) prefixes: Vec<([u8; 3], IpcacheEntry)>,
    pub(crate) nodes: BTreeMap<NodeNumber, NodeEntry>,
    pub(crate) rules: BTreeMap<PolicyKey, PolicyEntry>,
    pub(crate) connections: RefCell<BTreeMap<ConnectionKey, ConnectionEntry>>,
    /// No new connection fits.
    pub(crate) full: Cell<bool>,
}

pub(crate) const fn v4(bytes: [u8; 4]) -> Address {
    Address::from_ipv4(bytes)
}

impl Owners for Tables {
    fn address(&self, address: &Address) -> Option<IpcacheEntry> {
        self.addresses.get(address).copied()
    }

    fn prefix(&self, address: &Address) -> Option<IpcacheEntry> {
        let [a, b, c, _] = address.ipv4()?;
        self.prefixes.iter().find(|(prefix, _)| *prefix == [a, b, c]).map(|(_, entry)| *entry)
    }

    fn node(&self, number: NodeNumber) -> Option<NodeEntry> {
        self.nodes.get(&number).copied()
    }
}

impl Rules for Tables {
    fn verdict(&self, key: &PolicyKey) -> u8 {
        self.rules.get(key).map_or(0, |entry| entry.verdict)
    }
}

impl Connections for Tables {
    fn connection(&self, key: &ConnectionKey) -> Option<ConnectionEntry> {
        self.connections.borrow().get(key).copied()
    }

    fn remember(&self, key: &ConnectionKey, entry: &ConnectionEntry) -> bool {
        let mut connections = self.connections.borrow_mut();
        if self.full.get() && !connections.contains_key(key) {
            return false;
        }
        connections.insert(*key, *entry);
        true
    }
}

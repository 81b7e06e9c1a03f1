//! The maps as ordinary collections, and frames as ordinary bytes, for tests and for models in tests.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use landbridge_bpf_maps::{
    Address, CidrKey, ConnectionEntry, ConnectionKey, FragmentKey, FragmentPorts, IpcacheEntry,
    MasqueradeEntry, MasqueradeKey, NodeEntry, NodeNumber, PolicyEntry, PolicyKey, ServiceFlow,
    ServiceFlowKey,
};

use crate::{Connections, Fragments, Masquerades, Owners, Packet, Rules, Translations};

/// Every map that decisions look into.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// `IPCACHE`.
    pub addresses: BTreeMap<Address, IpcacheEntry>,
    /// `CIDRS`.
    pub prefixes: BTreeMap<CidrKey, IpcacheEntry>,
    /// `NODES`.
    pub nodes: BTreeMap<NodeNumber, NodeEntry>,
    /// `POLICY`.
    pub rules: BTreeMap<PolicyKey, PolicyEntry>,
    /// `CONNECTIONS`.
    pub connections: RefCell<BTreeMap<ConnectionKey, ConnectionEntry>>,
    /// `FRAGMENTS`.
    pub fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    /// `MASQUERADE`.
    pub masquerades: RefCell<BTreeMap<MasqueradeKey, MasqueradeEntry>>,
    /// `SERVICE_FLOWS`.
    pub service_flows: RefCell<BTreeMap<ServiceFlowKey, ServiceFlow>>,
    /// No new connection fits.
    pub full: Cell<bool>,
}

/// An IPv4 address.
pub const fn v4(bytes: [u8; 4]) -> Address {
    Address::from_ipv4(bytes)
}

impl Packet for [u8] {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..offset.checked_add(4 * N)?)?;
        let (words, _) = bytes.as_chunks::<4>();
        words.try_into().ok().map(|words: [[u8; 4]; N]| words.map(u32::from_ne_bytes))
    }
}

impl Owners for Tables {
    fn address(&self, address: &Address) -> Option<IpcacheEntry> {
        self.addresses.get(address).copied()
    }

    fn prefix(&self, address: &Address) -> Option<IpcacheEntry> {
        let bits = u128::from_be_bytes(address.0);
        let covers = |key: &CidrKey| {
            let behind = 128 - key.prefix_len.min(128);
            (bits ^ u128::from_be_bytes(key.address.0)).checked_shr(behind).unwrap_or_default() == 0
        };
        let covering = self.prefixes.iter().filter(|(key, _)| covers(key));
        covering.max_by_key(|(key, _)| key.prefix_len).map(|(_, entry)| *entry)
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

impl Fragments for Tables {
    fn ports(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_ports(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }
}

impl Masquerades for Tables {
    fn translation(&self, key: &MasqueradeKey) -> Option<MasqueradeEntry> {
        self.masquerades.borrow().get(key).copied()
    }

    fn claim(&self, key: &MasqueradeKey, entry: &MasqueradeEntry) -> bool {
        !self.masquerades.borrow().contains_key(key) && self.replace(key, entry)
    }

    fn replace(&self, key: &MasqueradeKey, entry: &MasqueradeEntry) -> bool {
        self.masquerades.borrow_mut().insert(*key, *entry);
        true
    }
}

impl Translations for Tables {
    fn service_flow(&self, key: &ServiceFlowKey) -> Option<ServiceFlow> {
        self.service_flows.borrow().get(key).copied()
    }

    fn remember_service_flow(&self, key: &ServiceFlowKey, entry: &ServiceFlow) -> bool {
        let mut flows = self.service_flows.borrow_mut();
        if self.full.get() && !flows.contains_key(key) {
            return false;
        }
        flows.insert(*key, *entry);
        true
    }
}

//! Pods of this node.

use crate::{KeyForms, PolicySet};

/// Value of the `ENDPOINTS` map, a `BPF_MAP_TYPE_HASH` by [`Address`](crate::Address): a pod's interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Index of the node's side of the interface. Only what comes through it may have the endpoint's address as source.
    pub interface: u32,
    /// Security identity of the pod.
    pub identity: u32,
    /// What may reach the pod; [`PolicySet::NOT_ENFORCED`] if no policy speaks of that.
    pub ingress: PolicySet,
    /// What the pod may reach; likewise.
    pub egress: PolicySet,
    /// Link-layer address of the pod's side.
    pub mac: [u8; 6],
    /// Link-layer address of the node's side.
    pub host_mac: [u8; 6],
    /// Number of the endpoint on its node.
    pub id: u16,
    /// Which ranges of ports the rules of both sets speak of: bit `n` is set where a rule has
    /// [`port_bits`](crate::PolicyKey::port_bits) of `n`, for `n` from 1 to 15. A packet's port is looked up once for each.
    pub port_prefixes: u16,
    /// What need not be looked up in `ingress`.
    pub ingress_lacks: KeyForms,
    /// Likewise in `egress`.
    pub egress_lacks: KeyForms,
}

impl Endpoint {
    /// Tells the endpoint from others that had its address not long ago: the low half of its interface's index, which the
    /// kernel counts up. The endpoint's `id` may be given again at once.
    #[must_use]
    pub const fn tag(&self) -> u16 {
        let [.., a, b] = self.interface.to_be_bytes();
        u16::from_be_bytes([a, b])
    }
}

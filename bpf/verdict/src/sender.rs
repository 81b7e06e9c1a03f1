//! Whether what comes out of the tunnel may say what it says.
//!
//! The tunnel is not authenticated, so nothing in it is taken on trust: the inner source has to be an address of the
//! node that the tunnel begins at, and the identity one that this address has.

use landbridge_bpf_maps::{Address, NodeNumber, Reason, identity};

use crate::owner::{Owners, cluster_of, is_allocated, is_cluster_only, owner_of};

/// Checks a packet from `source`, with the identity `claimed` in its tunnel header, in a tunnel from the underlay
/// address `tunnel_source`. `shift` is how many bits of an identity are below the cluster.
///
/// # Errors
/// [`Reason::UNKNOWN_SENDER`] if the source is not an address of the node at `tunnel_source`, and
/// [`Reason::INVALID_IDENTITY`] if it is, but not of this identity.
#[inline(always)]
pub fn check<O: Owners>(
    owners: &O,
    source: &Address,
    tunnel_source: &Address,
    claimed: u32,
    shift: u32,
) -> Result<(), Reason> {
    let Some(entry) = owner_of(owners, source) else { return Err(Reason::UNKNOWN_SENDER) };
    if entry.node == NodeNumber::NONE {
        // A node may speak for the very address that the tunnel begins at, and for no other outside of a tunnel.
        let itself = entry.identity == identity::REMOTE_NODE && source == tunnel_source;
        return match (itself, claimed) {
            (false, _) => Err(Reason::UNKNOWN_SENDER),
            (true, identity::REMOTE_NODE) => Ok(()),
            (true, _) => Err(Reason::INVALID_IDENTITY),
        };
    }
    let Some(node) = owners.node(entry.node) else { return Err(Reason::UNKNOWN_SENDER) };
    if node.underlay != *tunnel_source || node.underlay.is_none() {
        return Err(Reason::UNKNOWN_SENDER);
    }
    if claimed == identity::REMOTE_NODE && entry.identity == identity::REMOTE_NODE {
        return Ok(());
    }
    if !is_allocated(claimed) || cluster_of(claimed, shift) != node.cluster {
        return Err(Reason::INVALID_IDENTITY);
    }
    // Of an address whose record has not arrived the cluster is known, by its prefix.
    let of_cluster = is_cluster_only(entry.identity, shift)
        && cluster_of(entry.identity, shift) == cluster_of(claimed, shift);
    if claimed == entry.identity || of_cluster { Ok(()) } else { Err(Reason::INVALID_IDENTITY) }
}

#[cfg(test)]
mod tests {
    use landbridge_bpf_maps::{CidrKey, IPV4_PREFIX_BITS, IpcacheEntry, NodeEntry};

    use super::*;
    use crate::tables::{Tables, v4};

    const SHIFT: u32 = 16;
    const POD: Address = v4([10, 2, 1, 10]);
    const NEW_POD: Address = v4([10, 2, 1, 99]);
    const ROUTER: Address = v4([10, 2, 1, 1]);
    const NODE: Address = v4([172, 30, 2, 1]);
    const OTHER_NODE: Address = v4([172, 30, 3, 1]);
    const fn of_cluster(cluster: u32, number: u32) -> u32 {
        cluster << SHIFT | number
    }

    const POD_IDENTITY: u32 = of_cluster(2, 300);

    /// Node 1 of cluster 2 with a pod and a `PodCIDR`, and node 2 of cluster 3.
    fn tables() -> Tables {
        let mut tables = Tables::default();
        let node = NodeNumber(1);
        tables.addresses.extend([
            (POD, IpcacheEntry { identity: POD_IDENTITY, node }),
            (ROUTER, IpcacheEntry { identity: identity::REMOTE_NODE, node }),
            (NODE, IpcacheEntry { identity: identity::REMOTE_NODE, node: NodeNumber::NONE }),
            (v4([10, 1, 1, 1]), IpcacheEntry { identity: identity::HOST, node: NodeNumber::NONE }),
            (v4([10, 9, 9, 9]), IpcacheEntry { identity: POD_IDENTITY, node: NodeNumber(7) }),
        ]);
        let range = CidrKey { prefix_len: IPV4_PREFIX_BITS + 24, address: v4([10, 2, 1, 0]) };
        tables.prefixes.insert(range, IpcacheEntry { identity: 2 << SHIFT, node });
        tables.nodes.insert(node, NodeEntry { underlay: NODE, cluster: 2 });
        tables.nodes.insert(NodeNumber(2), NodeEntry { underlay: OTHER_NODE, cluster: 3 });
        tables.nodes.insert(NodeNumber(7), NodeEntry::default());
        tables
    }

    #[test]
    fn a_sender_may_only_be_who_it_is() {
        let tables = tables();
        let unknown = Err(Reason::UNKNOWN_SENDER);
        let invalid = Err(Reason::INVALID_IDENTITY);
        let remote_node = identity::REMOTE_NODE;
        for (name, source, tunnel_source, claimed, expected) in [
            ("a pod as itself", POD, NODE, POD_IDENTITY, Ok(())),
            ("a pod as another of its cluster", POD, NODE, POD_IDENTITY + 1, invalid),
            ("a pod as one of another cluster", POD, NODE, of_cluster(3, 300), invalid),
            ("a pod as its cluster", POD, NODE, 2 << SHIFT, invalid),
            ("a pod as nobody", POD, NODE, 0, invalid),
            ("a pod as the host", POD, NODE, identity::HOST, invalid),
            ("a pod as the world", POD, NODE, identity::WORLD, invalid),
            ("a pod as a node", POD, NODE, remote_node, invalid),
            ("a pod from another node", POD, OTHER_NODE, POD_IDENTITY, unknown),
            ("a pod from nowhere", POD, Address::default(), POD_IDENTITY, unknown),
            ("a pod whose record has not come", NEW_POD, NODE, of_cluster(2, 999), Ok(())),
            ("such a pod as one of another cluster", NEW_POD, NODE, of_cluster(3, 999), invalid),
            ("such a pod as a node", NEW_POD, NODE, remote_node, invalid),
            ("such a pod from another node", NEW_POD, OTHER_NODE, of_cluster(2, 999), unknown),
            ("a node's router address", ROUTER, NODE, remote_node, Ok(())),
            ("a node's router address as a pod", ROUTER, NODE, POD_IDENTITY, invalid),
            ("a node's router address as the host", ROUTER, NODE, identity::HOST, invalid),
            ("a node's router address from another node", ROUTER, OTHER_NODE, remote_node, unknown),
            ("a node as itself", NODE, NODE, remote_node, Ok(())),
            ("a node as a pod", NODE, NODE, POD_IDENTITY, invalid),
            ("a node as another", NODE, OTHER_NODE, remote_node, unknown),
            ("this node", v4([10, 1, 1, 1]), NODE, remote_node, unknown),
            ("an address of the world", v4([8, 8, 8, 8]), NODE, identity::WORLD, unknown),
            (
                "an address of a node that is not set",
                v4([10, 9, 9, 9]),
                Address::default(),
                POD_IDENTITY,
                unknown,
            ),
        ] {
            assert_eq!(check(&tables, &source, &tunnel_source, claimed, SHIFT), expected, "{name}");
        }
    }
}

//! Who an address belongs to.

use landbridge_bpf_maps::{Address, IpcacheEntry, NodeEntry, NodeNumber, identity};

/// The maps that know addresses.
pub trait Owners {
    /// The entry of exactly this address.
    fn address(&self, address: &Address) -> Option<IpcacheEntry>;
    /// The entry of the longest prefix that covers the address.
    fn prefix(&self, address: &Address) -> Option<IpcacheEntry>;
    /// A node by its number.
    fn node(&self, number: NodeNumber) -> Option<NodeEntry>;
}

/// What is known of an address; nothing for one outside of the mesh.
#[inline(always)]
pub fn owner_of<O: Owners>(owners: &O, address: &Address) -> Option<IpcacheEntry> {
    match owners.address(address) {
        Some(entry) => Some(entry),
        None => owners.prefix(address),
    }
}

/// Whether an apiserver of the mesh allocated this identity, or a cluster as a whole is meant.
#[inline(always)]
pub const fn is_allocated(identity: u32) -> bool {
    identity >= identity::FIRST_ALLOCATED && identity <= identity::MAX
}

/// The id of the cluster that an allocated identity is of. `shift` is how many bits are below it.
#[inline(always)]
pub const fn cluster_of(identity: u32, shift: u32) -> u32 {
    identity.wrapping_shr(shift)
}

/// Whether an identity says no more than "of this cluster".
#[inline(always)]
pub const fn is_cluster_only(identity: u32, shift: u32) -> bool {
    is_allocated(identity) && cluster_of(identity, shift).wrapping_shl(shift) == identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_the_mesh_splits_them() {
        for (identity, shift, allocated, cluster, cluster_only) in [
            (identity::REMOTE_NODE, 16, false, 0, false),
            (255, 16, false, 0, false),
            (256, 16, true, 0, false),
            (0x0003_0000, 16, true, 3, true),
            (0x0003_0101, 16, true, 3, false),
            (0x0003_0000, 15, true, 6, true),
            (0x0003_8000, 16, true, 3, false),
            (0x0003_8000, 15, true, 7, true),
            (identity::MAX, 16, true, 255, false),
            (identity::MAX + 1, 16, false, 256, false),
        ] {
            assert_eq!(is_allocated(identity), allocated, "{identity:#x}");
            assert_eq!(cluster_of(identity, shift), cluster, "{identity:#x} >> {shift}");
            assert_eq!(is_cluster_only(identity, shift), cluster_only, "{identity:#x} >> {shift}");
        }
    }
}

//! The numbers of cluster and member: made once, and on disk from then on.

use sha2::{Digest, Sha256};

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
}

impl Identity {
    /// The identity of the first member of a new cluster: hashes of what tells it from others, as in etcd.
    ///
    /// Unlike there, `chance` makes a cluster that was lost and made anew another one. Its revisions begin again, and clients
    /// that took them for those of before would go on from a revision that means something else now, and miss what differs.
    pub(super) fn new(cluster_token: &str, peer_url: &str, chance: u64) -> Self {
        let member_id = hash(&[b"member", cluster_token.as_bytes(), peer_url.as_bytes()]);
        let cluster = [&member_id.to_be_bytes()[..], &chance.to_be_bytes()].concat();
        let cluster_id = hash(&[b"cluster", cluster_token.as_bytes(), &cluster]);
        Self { cluster_id, member_id }
    }
}

/// A number that is not 0, which means "none" in etcd's API.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        // With their lengths, so that parts do not run into each other.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let number = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    number.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_distinct() {
        let one = Identity::new("token", "https://one:2380", 7);
        assert_eq!(one, Identity::new("token", "https://one:2380", 7));
        for other in
            [Identity::new("other", "https://one:2380", 7), Identity::new("token", "https://two:2380", 7)]
        {
            assert_ne!(one.cluster_id, other.cluster_id);
            assert_ne!(one.member_id, other.member_id);
        }
        let anew = Identity::new("token", "https://one:2380", 8);
        assert_ne!(one.cluster_id, anew.cluster_id);
        assert_ne!(one.cluster_id, one.member_id);
    }
}

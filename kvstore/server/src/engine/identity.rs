//! The numbers of cluster and member: made once, and on disk from then on.

use sha2::{Digest, Sha256};

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
}

impl Identity {
    /// The identity of the first member of a new cluster: hashes of what tells it from others, as in etcd, so that
    /// members that are told the same agree without asking each other.
    pub(super) fn derive(cluster_token: &str, peer_url: &str) -> Self {
        let member_id = hash(&[b"member", cluster_token.as_bytes(), peer_url.as_bytes()]);
        let cluster_id = hash(&[b"cluster", cluster_token.as_bytes(), &member_id.to_be_bytes()]);
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
    fn identities_are_stable_and_distinct() {
        let one = Identity::derive("token", "https://one:2380");
        assert_eq!(one, Identity::derive("token", "https://one:2380"));
        // What is on disk and in clients' memory was made by this very function.
        assert_eq!(one, Identity { cluster_id: 0xeee3_cd9b_eeae_6af0, member_id: 0xeb1d_cac3_ae3b_6c44 });
        for other in
            [Identity::derive("other", "https://one:2380"), Identity::derive("token", "https://two:2380")]
        {
            assert_ne!(one.cluster_id, other.cluster_id);
            assert_ne!(one.member_id, other.member_id);
        }
        assert_ne!(one.cluster_id, one.member_id);
    }
}

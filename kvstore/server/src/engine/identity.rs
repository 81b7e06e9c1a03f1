//! The numbers of cluster and member: made once, and on disk from then on.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::InitialMember;

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
}

impl Identity {
    /// The identity of a member that makes a cluster alone.
    ///
    /// Unlike in etcd, `chance` makes a cluster that was lost and made anew another one. Its revisions begin again, and
    /// clients that took them for those of before would go on from a revision that means something else now, and miss what
    /// differs.
    pub(super) fn alone(cluster_token: &str, peer_urls: &[String], chance: u64) -> Self {
        let member_id = member_id(cluster_token, peer_urls, 0);
        let cluster = [&member_id.to_be_bytes()[..], &chance.to_be_bytes()].concat();
        let cluster_id = hash(&[b"cluster", cluster_token.as_bytes(), &cluster]);
        Self { cluster_id, member_id }
    }

    /// The identity of the member at `peer_urls` of a cluster that is made by all of `initial`: the same on each of them,
    /// as in etcd, for they have not talked to each other yet.
    pub(super) fn of_cluster(cluster_token: &str, initial: &[InitialMember], peer_urls: &[String]) -> Self {
        let ids: BTreeSet<u64> =
            initial.iter().map(|member| member_id(cluster_token, &member.peer_urls, 0)).collect();
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
        let cluster_id = hash(&[b"members", cluster_token.as_bytes(), &ids]);
        Self { cluster_id, member_id: member_id(cluster_token, peer_urls, 0) }
    }
}

/// The number of a member: a hash of the cluster's token and of its URLs, whatever their order, as in etcd.
///
/// `chance` is 0 for those who make a cluster. One that is added later gets another, so that it is not taken for one with
/// the same URLs that was removed.
pub(super) fn member_id(cluster_token: &str, peer_urls: &[String], chance: u64) -> u64 {
    let urls: BTreeSet<&String> = peer_urls.iter().collect();
    let mut parts: Vec<&[u8]> = vec![b"member", cluster_token.as_bytes()];
    parts.extend(urls.into_iter().map(String::as_bytes));
    let chance = chance.to_be_bytes();
    parts.push(&chance);
    hash(&parts)
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

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    #[test]
    fn identities_are_distinct() {
        let (at_one, at_two) = (urls(&["https://one:2380"]), urls(&["https://two:2380"]));
        let one = Identity::alone("token", &at_one, 7);
        assert_eq!(one, Identity::alone("token", &at_one, 7));
        for other in [Identity::alone("other", &at_one, 7), Identity::alone("token", &at_two, 7)] {
            assert_ne!(one.cluster_id, other.cluster_id);
            assert_ne!(one.member_id, other.member_id);
        }
        let anew = Identity::alone("token", &at_one, 8);
        assert_ne!(one.cluster_id, anew.cluster_id);
        assert_ne!(one.cluster_id, one.member_id);
        assert_ne!(member_id("token", &at_one, 1), member_id("token", &at_one, 2));
    }

    #[test]
    fn members_of_a_new_cluster_agree_without_asking() {
        let member = |name: &str, peer_urls| InitialMember { name: name.to_owned(), peer_urls };
        let (one, two) = (urls(&["http://one:1", "http://one:2"]), urls(&["http://two:1"]));
        let initial = [member("one", one.clone()), member("two", two.clone())];
        let reversed = [member("two", two.clone()), member("one", urls(&["http://one:2", "http://one:1"]))];
        let first = Identity::of_cluster("token", &initial, &one);
        let second = Identity::of_cluster("token", &reversed, &two);
        assert_eq!(first.cluster_id, second.cluster_id);
        assert_ne!(first.member_id, second.member_id);
        assert_eq!(first, Identity::of_cluster("token", &reversed, &urls(&["http://one:2", "http://one:1"])));
        assert_ne!(first.cluster_id, Identity::of_cluster("other", &initial, &one).cluster_id);
        assert_ne!(first.cluster_id, Identity::of_cluster("token", &initial[..1], &one).cluster_id);
    }
}

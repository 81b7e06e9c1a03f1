//! The order of writes, and where they lead.

use std::collections::BTreeMap;

use landbridge_apiserver::objects::{PolicyKind, PolicyName};
use landbridge_apiserver::publish::{Stored, Withhold, diff, own_keys};
use landbridge_kvstore_client::Write;
use landbridge_kvstore_schema::{ClusterName, Keyspace, ObjectName};
use proptest::prelude::*;

fn applied(actual: &Stored, writes: &[Write]) -> Stored {
    let mut after = actual.clone();
    for write in writes {
        match write {
            Write::Put { key, value } => drop(after.insert(key.clone(), value.clone())),
            Write::Delete { key } => drop(after.remove(key)),
        }
    }
    after
}

fn any_stored() -> impl Strategy<Value = Stored> {
    let key = prop_oneof![
        "cilium/state/identities/v1/id/[1-3]",
        "cilium/state/ip/v1/default/10.1.1.[1-3]",
        "cilium/state/services/v1/a/shop/[a-c]",
        "cilium/state/nodes/v1/a/[a-c]",
        "landbridge/local/pods/shop/[a-c]",
        "landbridge/local/policies/shop/[a-c]",
        "landbridge/config/pod-ranges/[a-c]",
        "cilium/cluster-config/a",
    ];
    proptest::collection::btree_map(
        key,
        proptest::collection::vec(any::<bool>().prop_map(u8::from), 1),
        0..12,
    )
}

fn any_canaries() -> impl Strategy<Value = Stored> {
    let key = "cilium/synced/a/cilium/state/(nodes|ip)/v1";
    proptest::collection::btree_map(key, proptest::collection::vec(any::<u8>(), 2), 0..3)
}

fn is(write: &Write, prefix: &str) -> bool {
    matches!(write, Write::Put { key, .. } if key.starts_with(prefix))
}

proptest! {
    /// Applying the writes reaches the desired state, and then nothing is left to write.
    #[test]
    fn writes_converge(desired in any_stored(), canaries in any_canaries(), actual in any_stored(), old in any_canaries()) {
        let actual: Stored = actual.into_iter().chain(old.clone()).collect();
        let writes = diff(&desired, &canaries, &actual, &Withhold::default());
        let after = applied(&actual, &writes);
        let mut expected = desired.clone();
        for (key, value) in &canaries {
            expected.insert(key.clone(), old.get(key).unwrap_or(value).clone());
        }
        prop_assert_eq!(&after, &expected);
        prop_assert!(diff(&desired, &canaries, &after, &Withhold::default()).is_empty());
    }

    /// A reader that sees any number of the first writes sees nothing that points to what is not there.
    #[test]
    fn writes_are_in_order(desired in any_stored(), canaries in any_canaries(), actual in any_stored()) {
        let writes = diff(&desired, &canaries, &actual, &Withhold::default());
        let puts = writes.iter().take_while(|write| matches!(write, Write::Put { .. })).count();
        let is_delete = |write: &Write| matches!(write, Write::Delete { .. });
        prop_assert!(writes[puts..].iter().all(is_delete));
        let last = |prefix: &str| writes.iter().rposition(|write| is(write, prefix)).map_or(0, |at| at + 1);
        let first = |prefix: &str| writes.iter().position(|write| is(write, prefix)).unwrap_or(usize::MAX);
        prop_assert!(last("cilium/state/identities/") <= first("cilium/state/ip/"));
        prop_assert!(last("cilium/state/identities/") <= first("landbridge/local/pods/"));
        prop_assert!(last("landbridge/config/") <= first("cilium/state/"));
        for data in ["cilium/state/", "landbridge/", "cilium/cluster-config/"] {
            prop_assert!(last(data) <= first("cilium/synced/"));
        }
        let delete = |prefix: &str| {
            writes.iter().position(|write| matches!(write, Write::Delete { key } if key.starts_with(prefix)))
        };
        if let (Some(identity), Some(ip)) = (delete("cilium/state/identities/"), delete("cilium/state/ip/")) {
            prop_assert!(ip < identity);
        }
    }

    /// While something is unknown, nothing goes, and all else still happens.
    #[test]
    fn what_is_unknown_is_not_withdrawn(desired in any_stored(), actual in any_stored()) {
        let withhold = Withhold { everything: true, ..Withhold::default() };
        let canaries = Stored::from([("cilium/synced/a/cilium/state/ip/v1".to_owned(), Vec::new())]);
        let after = applied(&actual, &diff(&desired, &canaries, &actual, &withhold));
        let expected: Stored = actual.into_iter().chain(desired).collect();
        prop_assert_eq!(after, expected, "nor does a canary say that all is there");
    }
}

#[test]
fn an_unknown_policy_stays_and_others_go() {
    let keys =
        ["shop/kept", "shop.rule-2/kept", "shop.kubernetes/kept", "shop/gone", "clusterwide.spec-1/kept"];
    let key = |name: &str| format!("landbridge/local/policies/{name}");
    let actual: Stored = keys.iter().map(|name| (key(name), Vec::new())).collect();
    let kept = PolicyName {
        kind: PolicyKind::Cilium,
        namespace: Some(ObjectName::new("shop").unwrap()),
        name: ObjectName::new("kept").unwrap(),
    };
    let withhold = Withhold { everything: false, policies: [kept].into() };
    let after = applied(&actual, &diff(&Stored::new(), &Stored::new(), &actual, &withhold));
    let expected: Stored =
        ["shop/kept", "shop.rule-2/kept"].iter().map(|name| (key(name), Vec::new())).collect();
    assert_eq!(after, expected);
}

#[test]
fn keys_of_others_are_not_the_publishers() {
    let own = own_keys(&Keyspace::state(ClusterName::new("a").unwrap()));
    let is_own = |key: &str| {
        own.keys.iter().any(|own| own == key)
            || own.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    };
    let ours = BTreeMap::from([
        ("cilium/cluster-config/a", true),
        ("cilium/cluster-config/ab", false),
        ("cilium/synced/a/cilium/state/ip/v1", true),
        ("cilium/synced/ab/cilium/cache/ip/v1", false),
        ("cilium/cache/ip/v1/b/10.2.0.1", false),
        ("cilium/state/ip/v1/default/10.1.0.1", true),
        ("cilium/.heartbeat", false),
        ("landbridge/config/peers/b", false),
        ("landbridge/config/service-addresses/shop/web", true),
        ("landbridge/health/a1/report", false),
        ("landbridge/local/pods/shop/web", true),
        ("landbridge/lock/publisher", false),
        ("landbridge/shared/drain", false),
        ("landbridge/shared/facts", true),
    ]);
    let found: BTreeMap<_, _> = ours.keys().map(|key| (*key, is_own(key))).collect();
    assert_eq!(found, ours);
}

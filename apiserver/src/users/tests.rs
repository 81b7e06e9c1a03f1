//! Every prefix with every role.

use landbridge_kvstore_server::access::Permissions;

use super::*;

const OWN: &str = "paris";

/// One key of each prefix that has its own rule.
const KEYS: [(&str, &str); 15] = [
    ("heartbeat", "cilium/.heartbeat"),
    ("state", "cilium/state/ip/v1/default/10.1.0.1"),
    ("cache", "cilium/cache/ip/v1/lyon/10.2.0.1"),
    ("own config", "cilium/cluster-config/paris"),
    ("longer config", "cilium/cluster-config/paris2"),
    ("peer config", "cilium/cluster-config/lyon"),
    ("own canary", "cilium/synced/paris/cilium/state/ip/v1"),
    ("peer canary", "cilium/synced/lyon/cilium/cache/ip/v1"),
    ("shared", "landbridge/shared/drain"),
    ("local", "landbridge/local/pods/shop/cart"),
    ("own report", "landbridge/health/n1/report"),
    ("other report", "landbridge/health/n11/report"),
    ("config", "landbridge/config/readers/lyon"),
    ("lock", "landbridge/lock/publisher"),
    ("elsewhere", "cilium/other"),
];

fn permissions(user: &str) -> Option<Permissions> {
    let names = |names: [&str; 2]| names.map(|name| ObjectName::new(name).unwrap());
    let own = ClusterName::new(OWN).unwrap();
    let readers = [ClusterName::new("lyon").unwrap()];
    access_rules(&own, &names(["n1", "n11"]), &readers).of(Some(user)).ok()
}

fn allowed(check: impl Fn(&KeyRange) -> bool) -> Vec<&'static str> {
    let may = |key: &str| check(&KeyRange::Single(key.to_owned().into()));
    KEYS.iter().filter(|(_, key)| may(key)).map(|(what, _)| *what).collect()
}

fn readable(user: &str) -> Vec<&'static str> {
    let permissions = permissions(user).unwrap();
    allowed(|range| permissions.read(range).is_ok())
}

fn writable(user: &str) -> Vec<&'static str> {
    let permissions = permissions(user).unwrap();
    allowed(|range| permissions.write(range).is_ok())
}

#[test]
fn the_admin_reads_and_writes_everything() {
    assert_eq!(readable("admin-paris").len(), KEYS.len());
    assert_eq!(writable("admin-paris").len(), KEYS.len());
}

#[test]
fn an_agent_reads_what_agents_need_and_writes_its_own_reports() {
    let expected = [
        "heartbeat",
        "state",
        "cache",
        "own config",
        "longer config",
        "peer config",
        "own canary",
        "peer canary",
        "shared",
        "local",
        "own report",
        "other report",
    ];
    assert_eq!(readable("agent-n1"), expected);
    assert_eq!(writable("agent-n1"), ["own report"]);
    assert_eq!(writable("agent-n11"), ["other report"]);
}

#[test]
fn cilium_agents_read_mirrored_clusters() {
    let expected =
        ["heartbeat", "cache", "own config", "longer config", "peer config", "own canary", "peer canary"];
    assert_eq!(readable("local-paris"), expected);
    assert!(writable("local-paris").is_empty());
}

#[test]
fn a_peer_reads_what_this_cluster_says_of_itself() {
    assert_eq!(readable("remote-lyon"), ["heartbeat", "state", "own config", "own canary", "shared"]);
    assert!(writable("remote-lyon").is_empty());
}

#[test]
fn whoever_is_not_known_may_nothing() {
    for user in
        ["", "root", "remote-nice", "agent-n2", "admin-lyon", "local-lyon", "remote-lyon2", "agent-", "paris"]
    {
        assert_eq!(permissions(user), None, "{user}");
    }
}

#[test]
fn bare_prefixes_and_open_ranges_reach_no_further_than_single_keys() {
    let prefixes = [
        "",
        "c",
        "cilium",
        "cilium/",
        "cilium/.heartbeat",
        "cilium/state",
        "cilium/state/",
        "cilium/cache",
        "cilium/cache/",
        "cilium/cluster-config/",
        "cilium/cluster-config/paris",
        "cilium/synced/",
        "cilium/synced/paris/",
        "cilium/state/identities/v1/id",
        "landbridge",
        "landbridge/",
        "landbridge/health/",
        "landbridge/health/n1",
        "landbridge/health/n1/",
        "landbridge/config",
        "landbridge/lock/",
        "landbridge/shared/",
        "landbridge/local/",
    ];
    for user in ["agent-n1", "local-paris", "remote-lyon"] {
        let permissions = permissions(user).unwrap();
        for prefix in prefixes {
            let closed = KeyRange::prefix(prefix.as_bytes());
            let open = KeyRange::From(prefix.as_bytes().to_vec().into());
            assert!(permissions.read(&open).is_err(), "{user} reads from {prefix:?} on");
            assert!(permissions.write(&open).is_err(), "{user} writes from {prefix:?} on");
            // A range may be read only if each key that it holds may.
            if permissions.read(&closed).is_ok() {
                for (what, key) in KEYS.iter().filter(|(_, key)| key.starts_with(prefix)) {
                    let key = KeyRange::Single((*key).to_owned().into());
                    assert!(permissions.read(&key).is_ok(), "{user} reads {prefix:?} but not {what}");
                }
            }
        }
        let reads = |prefix: &str| permissions.read(&KeyRange::prefix(prefix.as_bytes())).is_ok();
        assert!(!reads("") && !reads("cilium/") && !reads("landbridge/"), "{user}");
        assert!(!reads("landbridge/config/") && !reads("landbridge/lock/"), "{user}");
    }
}

#[test]
fn what_cilium_watches_is_granted_whole() {
    let reads = |user: &str, prefix: &str| {
        permissions(user).unwrap().read(&KeyRange::prefix(prefix.as_bytes())).is_ok()
    };
    // These two are watched without a slash at the end.
    assert!(reads("remote-lyon", "cilium/.heartbeat"));
    assert!(reads("remote-lyon", "cilium/state/identities/v1/id"));
    assert!(reads("local-paris", "cilium/.heartbeat"));
    assert!(reads("local-paris", "cilium/cache/identities/v1/lyon/id"));
    // A peer reads one config, so it can neither list them nor see others that begin alike.
    assert!(!reads("remote-lyon", "cilium/cluster-config/"));
    assert!(!reads("remote-lyon", "cilium/cluster-config/paris"));
    assert!(!reads("remote-lyon", "cilium/synced/"));
}

#[test]
fn users_have_one_name_each() {
    let own = ClusterName::new(OWN).unwrap();
    for name in ["admin-paris", "local-paris", "agent-n1", "agent-n-1.eu", "remote-lyon"] {
        assert_eq!(User::parse(&own, name).unwrap().common_name(&own), name);
    }
    for name in
        ["", "paris", "admin", "admin-lyon", "local-", "agent-", "agent-N", "remote-default", "root-paris"]
    {
        assert!(User::parse(&own, name).is_err(), "{name}");
    }
}

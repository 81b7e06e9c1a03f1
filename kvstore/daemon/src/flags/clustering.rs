//! Flags of a cluster.

use super::Kind::{Choice, Switch, Text};
use super::{Flag, none, refused, works};

const NO_DISCOVERY: &str = "members find each other by --initial-cluster alone";
const NO_V2: &str = "there is no API v2 here";

pub(super) const FLAGS: &[Flag] = &[
    works(
        "initial-advertise-peer-urls",
        Text,
        "http://localhost:2380",
        "URLs by which the others reach this member",
    ),
    works(
        "initial-cluster",
        Text,
        "",
        "All members that make a new cluster: name=URL,name=URL; only this one by default",
    ),
    works(
        "initial-cluster-state",
        Choice(&["new", "existing"]),
        "new",
        "Make a cluster, or join one that runs: new, existing",
    ),
    works("initial-cluster-token", Text, "etcd-cluster", "Keeps clusters with equal members apart"),
    works("advertise-client-urls", Text, "http://localhost:2379", "URLs by which clients reach this member"),
    works(
        "auto-compaction-mode",
        Choice(&["periodic", "revision"]),
        "periodic",
        "What the retention counts: periodic, revision",
    ),
    works(
        "auto-compaction-retention",
        Text,
        "0",
        "History that is kept, in hours or as 5m, or in revisions; 0 keeps all",
    ),
    works(
        "force-new-cluster",
        Switch,
        "false",
        "Go on alone with this member's data, whatever members it names",
    ),
    refused(
        "strict-reconfig-check",
        Switch,
        "true",
        "a change of members that loses the majority is always refused",
    ),
    refused("pre-vote", Switch, "true", "a member that comes back always asks before it stands for election"),
    refused("discovery", Text, "", NO_DISCOVERY),
    refused("discovery-srv", Text, "", NO_DISCOVERY),
    none("discovery-srv-name", Text, "", NO_DISCOVERY),
    none("discovery-proxy", Text, "", NO_DISCOVERY),
    none("discovery-fallback", Text, "proxy", NO_DISCOVERY),
    refused("enable-v2", Switch, "false", NO_V2),
    none("v2-deprecation", Text, "not-yet", NO_V2),
    refused("experimental-enable-v2v3", Text, "", NO_V2),
];

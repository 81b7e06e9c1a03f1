//! A cluster from manifests to records.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use landbridge_apiserver::identities::Allocation;
use landbridge_apiserver::objects::Objects;
use landbridge_apiserver::objects::fill_in::{Kept, Ranges, fill_in};
use landbridge_apiserver::publish::{ClusterFacts, records, wanted_identities};
use landbridge_apiserver::source::validate;
use landbridge_kvstore_schema::{ClusterId, ClusterName, IpPrefix, Keyspace, MaxClusters, Origin};

pub(crate) fn facts(cluster: &str, id: u32) -> ClusterFacts {
    ClusterFacts {
        origin: Origin {
            keyspace: Keyspace::state(ClusterName::new(cluster).unwrap()),
            cluster_id: ClusterId::new(id, MaxClusters::Of255).unwrap(),
        },
        version: "0.1.0".to_owned(),
        ranges: Ranges {
            services: Some("10.96.0.0/16".parse().unwrap()),
            pods: vec![
                IpPrefix::V4(format!("10.{id}.0.0/16").parse().unwrap()),
                IpPrefix::V6(format!("fd10:{id:x}::/32").parse().unwrap()),
            ],
        },
    }
}

/// The objects of manifests that are in order.
pub(crate) fn objects(text: &str) -> Objects {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("all.yaml"), text).unwrap();
    let checked = validate(dir.path()).unwrap();
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
    checked.objects
}

pub(crate) fn demo(cluster: &str) -> Objects {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo").join(cluster);
    validate(&folder).unwrap().objects
}

/// What a cluster with nothing published yet publishes, and its problems.
pub(crate) fn publish(declared: &Objects, facts: &ClusterFacts) -> (BTreeMap<String, String>, Vec<String>) {
    let filled = fill_in(declared, &Kept::default(), &facts.ranges);
    let mut allocation = Allocation::new(facts.origin.cluster_id);
    for labels in wanted_identities(&filled.objects, facts) {
        allocation.insert(allocation.next_free().unwrap(), labels);
    }
    let published = records(&filled.objects, &filled.kept, &allocation, facts);
    let text = |(key, value)| (key, String::from_utf8(value).unwrap());
    let problems = filled.problems.into_iter().chain(published.problems).collect();
    (published.records.into_iter().map(text).collect(), problems)
}

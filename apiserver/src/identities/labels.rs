//! The labels that a pod is known by.

use std::collections::BTreeMap;

use landbridge_kvstore_schema::{CLUSTER_LABEL, ClusterName, InvalidLabel, Label, Labels};

use crate::objects::Pod;

/// The key of the label that says which namespace a pod is in (Cilium `pkg/k8s/apis/cilium.io`).
pub const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// What the key of each label starts with that a pod has from its namespace.
pub const NAMESPACE_LABELS_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
/// The key of the label that says which service account a pod has.
pub const SERVICE_ACCOUNT_LABEL: &str = "io.cilium.k8s.policy.serviceaccount";

const SOURCE: &str = "k8s";
/// Keys that a pod's own labels cannot have: they say where it is from.
const OURS: [&str; 2] = ["io.cilium.k8s.", NAMESPACE_LABEL];

/// Keys that start like this do not tell workloads apart, or differ from pod to pod (Cilium, "Limiting
/// Identity-Relevant Labels").
const IRRELEVANT: [&str; 11] = [
    "io.kubernetes",
    "kubernetes.io",
    "k8s.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "annotation",
    "etcd_node",
];
/// The same for keys that have this anywhere.
const BETA: &str = "beta.kubernetes.io";

/// The labels of the identity of `pod`, whose namespace has `namespace_labels`.
///
/// # Errors
/// [`InvalidLabel`] if a label cannot stand in a record.
pub fn labels_of(
    pod: &Pod,
    namespace_labels: &BTreeMap<String, String>,
    cluster: &ClusterName,
) -> Result<Labels, InvalidLabel> {
    let own = pod.labels.iter().filter(|(key, _)| is_relevant(key));
    let own = own.map(|(key, value)| Label::new(SOURCE, key, value));
    let of_namespace = namespace_labels
        .iter()
        .map(|(key, value)| Label::new(SOURCE, &format!("{NAMESPACE_LABELS_PREFIX}{key}"), value));
    let origin = [
        Label::new(SOURCE, NAMESPACE_LABEL, pod.name.namespace.as_str()),
        Label::new(SOURCE, SERVICE_ACCOUNT_LABEL, &pod.service_account),
        Label::new(SOURCE, CLUSTER_LABEL, cluster.as_str()),
    ];
    own.chain(of_namespace).chain(origin).collect()
}

fn is_relevant(key: &str) -> bool {
    let is_ours = OURS.iter().any(|prefix| key.starts_with(prefix));
    let is_irrelevant = IRRELEVANT.iter().any(|prefix| key.starts_with(prefix)) || key.contains(BETA);
    !is_ours && !is_irrelevant
}

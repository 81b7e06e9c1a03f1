//! Whom a policy may be about that cannot be read.
//!
//! ```text
//! value ─► its subject, if that much of it can be read: an apiserver may be newer than its agents
//!   └────► or else every pod of its namespace; every pod there is, if it is about all namespaces
//! ```

use landbridge_kvstore_schema::{
    LabelExpression, LabelKey, LabelOperator, NamespacedName, OwnRecord, Selector,
};
use serde::{Deserialize, Serialize};

/// Namespace of the pods of an identity (Cilium, `PodNamespaceLabel`).
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// What stands for the namespace in the keys of policies about all namespaces, with the number of a rule behind it.
const CLUSTERWIDE: &str = "clusterwide";

/// The one field of a policy that says whom it is about.
#[derive(Serialize, Deserialize)]
struct SubjectAlone {
    subject: Selector,
}

impl OwnRecord for SubjectAlone {}

/// The pods that the policy at `key` may be about.
pub(super) fn of_unreadable(name: &NamespacedName, key: &str, value: &[u8]) -> Selector {
    if let Ok(SubjectAlone { subject }) = SubjectAlone::decode(key, value) {
        return subject;
    }
    // The apiserver puts the number of a rule, or the kind of the policy, behind the namespace: no namespace has a dot.
    let namespace = match name.namespace.as_str().split_once('.') {
        Some((CLUSTERWIDE, _)) => return Selector::default(),
        Some((namespace, _)) => namespace,
        None => name.namespace.as_str(),
    };
    let key = LabelKey { source: Some("k8s".to_owned()), key: NAMESPACE_LABEL.to_owned() };
    let values = vec![namespace.to_owned()];
    Selector { expressions: vec![LabelExpression { key, operator: LabelOperator::In, values }] }
}

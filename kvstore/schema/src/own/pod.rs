//! Which identity a pod gets.

use serde::{Deserialize, Serialize};

use super::{OwnRecord, folder, namespaced_key};
use crate::{Area, KeyPrefix, LandbridgeKey, NamespacedName, ObjectName};

const FOLDER: &str = "pods";

/// A pod of this cluster, published as soon as it is known, before it has an address: its node's agent waits for it
/// when the pod's interface is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalPod {
    /// The node that the pod is to run on.
    pub node: ObjectName,
    /// Security identity; its labels are in the identity's own record.
    pub identity: u32,
    /// Tells a pod from one of the same name before it.
    #[serde(default)]
    pub uid: String,
}

impl OwnRecord for LocalPod {}

impl LocalPod {
    /// Where the record of `pod` is.
    pub fn key(pod: &NamespacedName) -> LandbridgeKey {
        namespaced_key(Area::Local, FOLDER, pod)
    }

    /// Where all of these records are.
    pub fn prefix() -> KeyPrefix {
        folder(Area::Local, FOLDER)
    }
}

//! The pods that this node serves: what each of them is given, kept over restarts.
//!
//! ```text
//! allocate ─► record with an address ─► activate ─► record with its interface ─► release
//!                 (on disk)                             (on disk, in the maps)
//! ```

mod table;

use std::net::Ipv4Addr;

use landbridge_kvstore_schema::{NamespacedName, ObjectName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use table::{AllocateError, EndpointTable, UnknownEndpoint};

use crate::netlink::Mac;

/// One interface of one container, which is what the CNI specification calls an attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attachment {
    /// The container, as its runtime calls it.
    pub(crate) container_id: String,
    /// The interface inside of it, such as `eth0`.
    pub(crate) interface: String,
}

/// What the agent keeps of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointRecord {
    /// Number on this node, 1 or more.
    pub(crate) id: u16,
    /// Whose interface it is.
    pub(crate) attachment: Attachment,
    /// Namespace of the pod.
    pub(crate) namespace: ObjectName,
    /// Name of the pod.
    pub(crate) pod: ObjectName,
    /// Address of the pod.
    pub(crate) address: Ipv4Addr,
    /// Name of the node's side of the interface.
    pub(crate) host_interface: String,
    /// What is known once the interface is made.
    pub(crate) activation: Option<Activation>,
}

/// An interface as the CNI plugin made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Activation {
    /// Link-layer address of the pod's side.
    pub(crate) pod_mac: Mac,
    /// Link-layer address of the node's side.
    pub(crate) host_mac: Mac,
    /// The file that the pod's network namespace was mounted on; its sockets are looked at there.
    pub(crate) network_namespace: String,
}

impl Attachment {
    /// The name of the node's side of the interface: at most 15 bytes, the kernel's limit, and the same for ever, so
    /// that what a crash leaves is found again.
    pub(crate) fn host_interface(&self) -> String {
        let mut hash = Sha256::new();
        // A NUL is in neither of them, so that no two attachments are hashed alike.
        hash.update(self.container_id.as_bytes());
        hash.update([0]);
        hash.update(self.interface.as_bytes());
        let hash = <[u8; 32]>::from(hash.finalize());
        let [first, ..] = hash.as_chunks::<8>().0 else { unreachable!("32 bytes are 4 times 8") };
        // 12 of 16 digits.
        let number = u64::from_be_bytes(*first) >> 16;
        format!("{HOST_INTERFACE_PREFIX}{number:012x}")
    }
}

/// How names of the node's side of pods' interfaces begin.
const HOST_INTERFACE_PREFIX: &str = "lb";

impl EndpointRecord {
    /// The pod.
    pub(crate) fn pod(&self) -> NamespacedName {
        NamespacedName { namespace: self.namespace.clone(), name: self.pod.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_interfaces_fit_the_kernel_and_do_not_collide() {
        let attachment = |container: &str, interface: &str| Attachment {
            container_id: container.to_owned(),
            interface: interface.to_owned(),
        };
        let name = attachment("a", "eth0").host_interface();
        assert_eq!(name, "lb263a9a147be0", "a name of today is looked up by the agent of tomorrow");
        assert!(name.len() <= 15);
        assert_ne!(name, attachment("ae", "th0").host_interface());
        assert_ne!(name, attachment("a", "eth1").host_interface());
    }
}

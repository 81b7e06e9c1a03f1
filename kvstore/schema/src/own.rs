//! Records of our own: what an apiserver tells its own agents and its peers beyond Cilium's schema, and what agents
//! report.
//!
//! ```text
//! landbridge/local/pods/<namespace>/<pod>          LocalPod        which identity a pod gets
//! landbridge/local/services/<namespace>/<service>  LocalService    a service's frontends and this cluster's backends
//! landbridge/local/policies/<namespace>/<policy>   Policy          who may talk to whom
//! landbridge/health/<node>/report                  NodeReport      what a node sees, with a lease
//! landbridge/config/peers/<cluster>                Peer            a cluster to read
//! landbridge/config/readers/<cluster>              Reader          a cluster that may read this one
//! landbridge/config/service-addresses/<ns>/<name>  text            the cluster IP that was given to a service
//! landbridge/config/pod-ranges/<node>              text            the pod range that was given to a node
//! landbridge/shared/facts                          SharedFacts     version and pod ranges of the cluster
//! ```
//!
//! All are JSON in lowerCamel. Fields that a reader does not know are ignored, so that fields can be added; a field that
//! is missing has its default. Both sides are ours and of one cluster, so that a record which cannot be read is a fault
//! to show, not an attack: reading still ends in a [`RecordError`] and never in a panic.

mod balance;
mod facts;
mod health;
mod peer;
mod pod;
mod policy;
mod service;
mod text;

pub use balance::{Balance, BalanceAlgorithm};
pub use facts::SharedFacts;
pub use health::{DropCount, NodeReport, PathReport};
pub use peer::{Peer, Reader};
pub use pod::LocalPod;
pub use policy::{
    Entity, LabelExpression, LabelKey, LabelOperator, Policy, PolicyPeer, PolicyPort, PolicyRule, Selector,
};
pub use service::{
    Affinity, LocalBackend, LocalBackendPort, LocalPort, LocalService, pod_range_key, pod_range_prefix,
    service_address_key, service_address_prefix,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Area, Excerpt, KeyPrefix, LandbridgeKey, NamespacedName, RecordError, Rejection};

/// The largest of our own records, in bytes; as etcd's default limit of a request.
const MAX_BYTES: usize = 3 << 19;

/// A record of our own, kept under a [`LandbridgeKey`].
pub trait OwnRecord: Serialize + DeserializeOwned {
    /// The value to put.
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("these types have text keys and no failing serializer")
    }

    /// Reads the value of `key`.
    ///
    /// # Errors
    /// [`RecordError`] with what is wrong.
    fn decode(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        let read = Rejection::check_size(value, MAX_BYTES).and_then(|()| {
            serde_json::from_slice(value)
                .map_err(|error| Rejection::Malformed { value: Excerpt::new(&error.to_string()) })
        });
        read.map_err(|rejection| RecordError { key: key.to_owned(), rejection })
    }
}

/// Everything below `landbridge/<area>/<folder>/`.
fn folder(area: Area, name: &str) -> KeyPrefix {
    KeyPrefix::new(format!("{}{name}/", area.prefix()))
}

fn namespaced_key(area: Area, folder: &str, name: &NamespacedName) -> LandbridgeKey {
    key(area, &[folder, name.namespace.as_str(), name.name.as_str()])
}

/// A key made of names, which are always segments.
fn key(area: Area, segments: &[&str]) -> LandbridgeKey {
    LandbridgeKey::new(area, segments).expect("names of objects and clusters are segments of keys")
}

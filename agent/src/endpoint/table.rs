//! All endpoints of the node. What it holds is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use landbridge_kvstore_schema::NamespacedName;

use super::{Activation, Attachment, EndpointRecord};
use crate::pod_cidr::PodCidr;
use crate::state_dir::{StateDir, StateError};

/// Why an endpoint cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllocateError {
    /// Every address of the range is taken.
    #[error("all addresses of the node's PodCIDR {} are taken: delete pods, or give the node a larger range", .0.prefix())]
    Exhausted(PodCidr),
    /// Numbers are as good as endless: there are more of them than a range has addresses in practice.
    #[error("all 65535 endpoint numbers of the node are taken")]
    NoNumber,
    /// The attachment has an endpoint, and it is another pod's.
    #[error(
        "interface {} of container {} belongs to pod {pod}: run DEL for it first",
        attachment.interface, attachment.container_id
    )]
    OtherPod {
        /// The attachment.
        attachment: Attachment,
        /// The pod.
        pod: NamespacedName,
    },
    /// The two files of different interfaces would have one name.
    #[error(
        "the name {0} of the host's interface is taken by another container: run ADD again with another container id"
    )]
    NameTaken(String),
    /// It cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// There is no such endpoint.
#[derive(Debug, thiserror::Error)]
#[error("interface {} of container {} has no endpoint here: run ADD", .0.interface, .0.container_id)]
pub(crate) struct UnknownEndpoint(pub Attachment);

/// All endpoints of the node, by attachment.
#[derive(Debug)]
pub(crate) struct EndpointTable {
    cidr: PodCidr,
    state: StateDir,
    records: BTreeMap<Attachment, EndpointRecord>,
    /// The address that was given out most recently.
    last: Option<Ipv4Addr>,
}

impl EndpointTable {
    /// Reads what was kept.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn load(cidr: PodCidr, state: StateDir) -> Result<Self, StateError> {
        let mut records = state.endpoints()?;
        records.sort_by_key(|record| record.id);
        let records = records.into_iter().map(|record| (record.attachment.clone(), record)).collect();
        Ok(Self { cidr, state, records, last: None })
    }

    /// The range that addresses are from.
    pub(crate) fn cidr(&self) -> PodCidr {
        self.cidr
    }

    /// The endpoint of `attachment`.
    pub(crate) fn get(&self, attachment: &Attachment) -> Option<&EndpointRecord> {
        self.records.get(attachment)
    }

    /// Every endpoint.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &EndpointRecord> {
        self.records.values()
    }

    /// Reserves number and address for an attachment. A second call returns what the first one did. An address that
    /// still `rests` is given out when there is no other.
    ///
    /// # Errors
    /// [`AllocateError`]; then nothing is reserved.
    pub(crate) fn allocate(
        &mut self,
        attachment: &Attachment,
        pod: &NamespacedName,
        rests: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<&EndpointRecord, AllocateError> {
        if let Some(record) = self.records.get(attachment) {
            if record.pod() != *pod {
                return Err(AllocateError::OtherPod { attachment: attachment.clone(), pod: record.pod() });
            }
            return Ok(&self.records[attachment]);
        }
        let host_interface = attachment.host_interface();
        if self.iter().any(|record| record.host_interface == host_interface) {
            return Err(AllocateError::NameTaken(host_interface));
        }
        let addresses: BTreeSet<_> = self.iter().map(|record| record.address).collect();
        let numbers: BTreeSet<_> = self.iter().map(|record| record.id).collect();
        let address = self.cidr.free_address(&addresses, self.last, rests);
        let address = address.ok_or(AllocateError::Exhausted(self.cidr))?;
        let id = (1..=u16::MAX).find(|id| !numbers.contains(id)).ok_or(AllocateError::NoNumber)?;
        let record = EndpointRecord {
            id,
            attachment: attachment.clone(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            address,
            host_interface,
            activation: None,
        };
        self.state.keep_endpoint(&record)?;
        self.last = Some(address);
        Ok(self.records.entry(attachment.clone()).or_insert(record))
    }

    /// Notes that the interface of an endpoint is made.
    ///
    /// # Errors
    /// [`StateError`]; then nothing has changed.
    pub(crate) fn activate(
        &mut self,
        attachment: &Attachment,
        activation: Activation,
    ) -> Result<(), StateError> {
        let Some(record) = self.records.get_mut(attachment) else { return Ok(()) };
        if record.activation.as_ref() == Some(&activation) {
            return Ok(());
        }
        let activated = EndpointRecord { activation: Some(activation), ..record.clone() };
        self.state.keep_endpoint(&activated)?;
        *record = activated;
        Ok(())
    }

    /// Releases number and address of an endpoint and returns what it was, if it was.
    ///
    /// # Errors
    /// [`StateError`]; then it is still there.
    pub(crate) fn release(&mut self, attachment: &Attachment) -> Result<Option<EndpointRecord>, StateError> {
        let Some(record) = self.records.get(attachment) else { return Ok(None) };
        self.state.forget_endpoint(record.id)?;
        Ok(self.records.remove(attachment))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(folder: &std::path::Path, cidr: &str) -> EndpointTable {
        let cidr = PodCidr::new(cidr.parse().unwrap()).unwrap();
        EndpointTable::load(cidr, StateDir::open(folder).unwrap()).unwrap()
    }

    fn attachment(number: u8) -> Attachment {
        Attachment { container_id: format!("container-{number}"), interface: "eth0".to_owned() }
    }

    fn pod(number: u8) -> NamespacedName {
        NamespacedName::new("shop", &format!("cart-{number}")).unwrap()
    }

    fn activation() -> Activation {
        Activation { pod_mac: [2; 6], host_mac: [4; 6], network_namespace: "/run/netns/x".to_owned() }
    }

    #[test]
    fn what_is_allocated_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = table(folder.path(), "10.1.2.0/24");
        let before = first.allocate(&attachment(1), &pod(1), |_| false).unwrap().clone();
        assert_eq!((before.id, before.address.to_string().as_str()), (1, "10.1.2.3"));
        assert_eq!(*first.allocate(&attachment(1), &pod(1), |_| false).unwrap(), before, "twice is once");
        first.activate(&attachment(1), activation()).unwrap();
        first.allocate(&attachment(2), &pod(2), |_| false).unwrap();
        first.release(&attachment(2)).unwrap().unwrap();
        drop(first);

        let second = table(folder.path(), "10.1.2.0/24");
        let kept: Vec<_> = second.iter().cloned().collect();
        assert_eq!(kept, [EndpointRecord { activation: Some(activation()), ..before }]);
    }

    #[test]
    fn an_attachment_is_one_pods() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = table(folder.path(), "10.1.2.0/24");
        table.allocate(&attachment(1), &pod(1), |_| false).unwrap();
        let error = table.allocate(&attachment(1), &pod(2), |_| false).unwrap_err();
        assert!(error.to_string().contains("belongs to pod shop/cart-1"), "{error}");
    }

    #[test]
    fn a_full_range_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = table(folder.path(), "10.1.2.0/29");
        for number in 0..4 {
            table.allocate(&attachment(number), &pod(number), |_| false).unwrap();
        }
        let error = table.allocate(&attachment(9), &pod(9), |_| false).unwrap_err();
        assert!(error.to_string().contains("10.1.2.0/29"), "{error}");
        table.release(&attachment(2)).unwrap();
        table.allocate(&attachment(9), &pod(9), |_| false).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Whatever is asked in whatever order, numbers and addresses have one owner, and the disk knows them all.
        #[test]
        fn nothing_is_given_out_twice(calls in prop::collection::vec((any::<bool>(), 0u8..12), 1..40)) {
            let folder = tempfile::tempdir().unwrap();
            let mut first = table(folder.path(), "10.1.2.0/28");
            for (allocates, number) in calls {
                if allocates {
                    first.allocate(&attachment(number), &pod(number), |_| false).unwrap();
                } else {
                    first.release(&attachment(number)).unwrap();
                }
                let addresses: BTreeSet<_> = first.iter().map(|record| record.address).collect();
                let numbers: BTreeSet<_> = first.iter().map(|record| record.id).collect();
                prop_assert_eq!((addresses.len(), numbers.len()), (first.iter().count(), first.iter().count()));
            }
            let before: Vec<_> = first.iter().cloned().collect();
            drop(first);
            prop_assert_eq!(table(folder.path(), "10.1.2.0/28").iter().cloned().collect::<Vec<_>>(), before);
        }
    }
}

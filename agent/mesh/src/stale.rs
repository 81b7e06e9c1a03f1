//! Which connections hold on to a backend that is of no use to them any more.
//!
//! | the backend | TCP | UDP |
//! |---|---|---|
//! | takes new connections | stays | stays |
//! | takes none: draining, not ready, not preferred | stays | ends |
//! | is gone, or on a node that does not answer | ends | ends |
//!
//! A UDP socket that is connected would send to it for ever, and a TCP one waits for minutes to be told. Connections of a
//! service that has no other backend stay, and so do those of a service that is gone.

use std::collections::BTreeSet;

use landbridge_bpf_maps::{Address, NodeNumber, ServiceKey};

use crate::Desired;

const TCP: u8 = 6;

impl Desired {
    /// Whether a connection to `service` with the backend at `address` and `port` (network byte order) is to end, now that
    /// this is what the maps hold and the nodes in `lost` do not answer.
    pub fn is_stale(
        &self,
        service: &ServiceKey,
        address: Address,
        port: [u8; 2],
        lost: &BTreeSet<NodeNumber>,
    ) -> bool {
        let Some(spec) = self.services.get(service) else { return false };
        let takes_new =
            spec.backends.iter().any(|backend| (backend.address, backend.port) == (address, port));
        if spec.backends.is_empty() || takes_new {
            return false;
        }
        let is_gone = self.ipcache.get(&address).is_none_or(|entry| lost.contains(&entry.node));
        service.protocol != TCP || is_gone
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use landbridge_bpf_maps::{Backend, IpcacheEntry};

    use super::*;
    use crate::ServiceSpec;

    const PORT: [u8; 2] = [31, 144];

    fn pod(last: u8) -> Address {
        Ipv4Addr::new(10, 2, 1, last).into()
    }

    fn service(protocol: u8) -> ServiceKey {
        ServiceKey { address: Ipv4Addr::new(10, 96, 0, 1).into(), port: [0, 80], protocol, scope: 0 }
    }

    /// A service with backend 1; pods 1 and 2 are on node 1, 3 is on node 2, and 4 is nowhere.
    fn maps(backends: &[u8]) -> Desired {
        let on = |node| IpcacheEntry { identity: 300, node: NodeNumber(node) };
        let backends: Vec<Backend> = backends.iter().map(|last| Backend::new(pod(*last), PORT, 1)).collect();
        let spec = ServiceSpec { backends, ..ServiceSpec::default() };
        Desired {
            ipcache: [(pod(1), on(1)), (pod(2), on(1)), (pod(3), on(2))].into(),
            services: [(service(6), spec.clone()), (service(17), spec)].into(),
            ..Desired::default()
        }
    }

    #[test]
    fn connections_end_as_the_table_says() {
        let (none, second) = (BTreeSet::new(), BTreeSet::from([NodeNumber(2)]));
        for (what, backend, lost, tcp, udp) in [
            ("takes new connections", 1, &second, false, false),
            ("takes none", 2, &none, false, true),
            ("is on a node that answers", 3, &none, false, true),
            ("is on a node that does not", 3, &second, true, true),
            ("is gone", 4, &none, true, true),
        ] {
            let is_stale = |protocol| maps(&[1]).is_stale(&service(protocol), pod(backend), PORT, lost);
            assert_eq!((is_stale(6), is_stale(17)), (tcp, udp), "{what}");
        }
        assert!(maps(&[1]).is_stale(&service(17), pod(1), [0, 1], &none), "another port is another backend");
    }

    #[test]
    fn nothing_ends_that_has_nowhere_to_go() {
        for protocol in [6, 17] {
            let lost = BTreeSet::from([NodeNumber(1)]);
            assert!(!maps(&[]).is_stale(&service(protocol), pod(1), PORT, &lost), "no other backend");
            assert!(!Desired::default().is_stale(&service(protocol), pod(1), PORT, &lost), "no service");
        }
    }
}

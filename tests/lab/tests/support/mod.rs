//! What the tests of the lab share.

use std::net::IpAddr;

use landbridge_lab::{Host, Lab, LabName, LabSpec};

/// A lab of two clusters with `nodes` nodes of one pod each.
pub(crate) fn two_clusters(stem: &str, nodes: u8) -> Lab {
    Lab::start(LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(2, nodes, 1)).unwrap()
}

/// The addresses of a host that has some.
pub(crate) fn addresses(host: &Host) -> [IpAddr; 2] {
    host.addresses().unwrap()
}

/// Whether a host reaches an address.
pub(crate) fn reaches(from: &Host, to: IpAddr) -> bool {
    from.reaches(to).unwrap()
}

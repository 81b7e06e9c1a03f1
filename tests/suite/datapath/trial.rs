//! The programs without a node.

use std::time::Duration;

use landbridge_bpf_loader::maps::{Address, NodeConfig};
use rustix::time::{ClockId, clock_gettime};

use super::fixture::SHIFT;

/// The interface that programs run on: the loopback, which every network namespace has.
pub(super) const INTERFACE: u32 = 1;
pub(super) const ROUTER: Address = Address::from_ipv4([10, 1, 1, 1]);
pub(super) const HEALTH: Address = Address::from_ipv4([10, 1, 1, 2]);

/// What the programs know from the start.
pub(super) fn config() -> NodeConfig {
    NodeConfig {
        router: ROUTER,
        health: HEALTH,
        overlay_interface: 5,
        cluster: 1,
        cluster_shift: SHIFT,
        ..NodeConfig::default()
    }
}

/// The clock that the programs read.
pub(super) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

//! The programs without a node.

use std::time::Duration;

use landbridge_bpf_loader::maps::{Address, NodeConfig};
use rustix::time::{ClockId, clock_gettime};

use super::fixture::SHIFT;

/// The interface that programs run on: the loopback, which every network namespace has.
pub(super) const INTERFACE: u32 = 1;
pub(super) const ROUTER: Address = Address::from_ipv4([10, 1, 1, 1]);
pub(super) const HEALTH: Address = Address::from_ipv4([10, 1, 1, 2]);
pub(super) const ROUTER6: Address = v6(1, 1);
pub(super) const HEALTH6: Address = v6(1, 2);
/// The largest packet that fits in a tunnel over IPv4: small, since packets are.
pub(super) const OVERLAY_MTU: u32 = 200;
/// Where no pod may send to: a port that packets are for.
pub(super) const OVERLAY_PORT: u16 = 82;

/// A pod of a cluster.
pub(super) const fn v6(cluster: u8, last: u8) -> Address {
    Address([0xfd, 0, 0, 0, 0, 0, 0, cluster, 0, 0, 0, 0, 0, 0, 0, last])
}

/// What the programs know from the start.
pub(super) fn config() -> NodeConfig {
    NodeConfig {
        router: ROUTER,
        health: HEALTH,
        router6: ROUTER6,
        health6: HEALTH6,
        overlay_mtu: OVERLAY_MTU,
        overlay_port: OVERLAY_PORT.into(),
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

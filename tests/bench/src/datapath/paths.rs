//! The way of packets between pods, beside the kernel's own: on one node and between two.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use landbridge_bpf_loader::{Datapath, MapSizes};

use super::load::{LoadResult, Mode, client};
use super::node::{Network, introduce, ip, take_over, v4};
use super::{Scale, median};
use crate::report::{Goal, Row};

/// A way between two pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// One node, plain routing.
    Node,
    /// One node, ours.
    NodeOurs,
    /// Two nodes, plain routing.
    Routed,
    /// Two nodes, the kernel's VXLAN with routing.
    Vxlan,
    /// Two nodes, our overlay.
    OverlayOurs,
}

const WAYS: [Way; 5] = [Way::Node, Way::NodeOurs, Way::Routed, Way::Vxlan, Way::OverlayOurs];
const MODES: [Mode; 3] = [Mode::Exchange, Mode::ConnectExchange, Mode::Bulk];

/// A pair of pods with a way between them.
struct Contender {
    way: Way,
    network: Network,
    to: SocketAddr,
    _datapaths: Vec<Datapath>,
}

pub(super) fn rows(scale: Scale) -> Result<Vec<Row>> {
    let contenders = WAYS.iter().map(|way| Contender::start(*way)).collect::<Result<Vec<_>>>()?;
    let mut results: BTreeMap<(Way, Mode), Vec<LoadResult>> = BTreeMap::new();
    for _ in 0..scale.repeats {
        for mode in MODES {
            for contender in &contenders {
                let host = contender.network.lab.host("a1p1")?;
                let result = client(&host, mode, contender.to, scale.time)
                    .with_context(|| format!("{:?}", contender.way))?;
                results.entry((contender.way, mode)).or_default().push(result);
            }
        }
    }
    let figure = |way, mode, of: fn(&LoadResult) -> f64| {
        results.get(&(way, mode)).map(|results| median(results.iter().map(of).collect()))
    };
    let pairs = [
        (Way::NodeOurs, Way::Node, "one node, beside plain routing", 1.0),
        (Way::OverlayOurs, Way::Vxlan, "overlay, beside the kernel's VXLAN with routing", 1.05),
        (Way::OverlayOurs, Way::Routed, "overlay, beside plain routing without a tunnel", f64::INFINITY),
    ];
    let rows = pairs.iter().flat_map(|(ours, peer, what, most)| {
        let (at_most, at_least) = if most.is_finite() {
            (Goal::RatioAtMost(*most), Goal::RatioAtLeast(0.98))
        } else {
            (Goal::None, Goal::None)
        };
        let pair = |mode, of| (figure(*ours, mode, of), figure(*peer, mode, of));
        let p50: fn(&LoadResult) -> f64 = |result| result.p50;
        [
            Row::new(format!("round trip p50, {what}"), "us", pair(Mode::Exchange, p50), at_most),
            Row::new(
                format!("connect and exchange p50, {what}"),
                "us",
                pair(Mode::ConnectExchange, p50),
                Goal::None,
            ),
            Row::new(
                format!("bulk, {what}"),
                "Gbit/s",
                pair(Mode::Bulk, |result| result.rate * 8.0 / 1e9),
                at_least,
            ),
        ]
    });
    Ok(rows.collect())
}

impl Contender {
    fn start(way: Way) -> Result<Self> {
        let (nodes, pods) = if matches!(way, Way::Node | Way::NodeOurs) { (1, 2) } else { (2, 1) };
        let network = Network::start(nodes, pods)?;
        let to = network.backends(nodes, pods)?[0].into();
        let mut datapaths = Vec::new();
        match way {
            Way::Node | Way::Routed => {}
            Way::Vxlan => kernel_vxlan(&network)?,
            Way::NodeOurs | Way::OverlayOurs => {
                for node in 1..=nodes {
                    datapaths.push(take_over(&network, node, pods, MapSizes::default())?);
                }
                if let [a, b] = &mut datapaths[..] {
                    introduce(&network, a, 2, pods)?;
                    introduce(&network, b, 1, pods)?;
                }
            }
        }
        Ok(Self { way, network, to, _datapaths: datapaths })
    }
}

/// A tunnel between two nodes, with the way to the other's pods through it.
fn kernel_vxlan(network: &Network) -> Result<()> {
    for (own, other) in [(1, 2), (2, 1)] {
        let [host, peer] = [network.lab.host(&format!("a{own}"))?, network.lab.host(&format!("a{other}"))?];
        let addresses = peer.node_addresses().context("a node has addresses")?;
        let [pods, _] = addresses.pod_cidrs();
        let remote = v4(addresses.underlay());
        ip(
            &host,
            &format!(
                "link add vx0 type vxlan id 42 dstport 8472 remote {remote} dev eth0\n\
                 link set vx0 mtu 1450 up\naddr add 10.255.255.{own}/24 dev vx0\n\
                 route replace {pods} via 10.255.255.{other} dev vx0\n"
            ),
        )?;
    }
    Ok(())
}

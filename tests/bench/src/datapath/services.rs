//! Connections through a service, beside the same pods without one.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Instant;

use anyhow::Result;
use landbridge_bpf_loader::maps::{Backend, ServiceKey, ServiceSettings};
use landbridge_bpf_loader::{Datapath, MapSizes};

use super::kube_proxy::{self, SERVICE_PORT, Service, service_address};
use super::load::{Mode, client};
use super::node::{Network, feed, take_over};
use super::{Scale, median};
use crate::report::{Goal, Row};

/// Whose way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From pod to pod, without any rules.
    Direct,
    /// The same, with the kernel's connection tracking.
    Tracked,
    Ours,
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

/// `iptables-nft` takes more than ten minutes to load what is above.
const IPTABLES_NFT_MOST: u32 = 5_000;
/// Kernel tables of others are not worth the wait above.
const OTHERS_MOST: u32 = 20_000;
const TCP: u8 = 6;
/// How often one service of ours is changed.
const CHANGES: u32 = 1_000;
/// What makes the kernel track connections.
const TRACKING: &str = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
const MODES: [(Mode, &str); 3] = [
    (Mode::Connect, "connect and close"),
    (Mode::ConnectExchange, "connect and exchange"),
    (Mode::Exchange, "exchange on an open connection"),
];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tracked => "direct with conntrack",
            Self::Ours => "ours",
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// A node whose rules are in place.
struct Contender {
    way: Way,
    network: Network,
    /// Whom the client calls.
    to: SocketAddr,
    /// Of the whole rules and of one service's change, in seconds; of our maps the work alone.
    load: Option<f64>,
    change: Option<f64>,
    _datapath: Option<Datapath>,
}

/// Measures with `count` services of three backends each; the client asks for the last one.
pub(super) fn rows(count: u32, scale: Scale, peers: bool) -> Result<Vec<Row>> {
    let mut ways = vec![Way::Direct, Way::Ours];
    if peers && count <= OTHERS_MOST {
        ways.extend([Way::Tracked, Way::Nftables, Way::IptablesLegacy]);
        if count <= IPTABLES_NFT_MOST {
            ways.push(Way::IptablesNft);
        }
    }
    let mut contenders = Vec::new();
    for way in ways {
        eprintln!("{count} services, {}: setting up", way.name());
        match Contender::start(way, count) {
            Ok(contender) => contenders.push(contender),
            Err(error) => eprintln!("{count} services, {}: {error:#}", way.name()),
        }
    }
    let mut rates: BTreeMap<(Mode, Way), Vec<f64>> = BTreeMap::new();
    for _ in 0..scale.repeats {
        for (mode, _) in MODES {
            for contender in &contenders {
                let host = contender.network.lab.host("a1p1")?;
                match client(&host, mode, contender.to, scale.time) {
                    Ok(result) => rates.entry((mode, contender.way)).or_default().push(result.rate),
                    Err(error) => eprintln!("{count} services, {}: {error:#}", contender.way.name()),
                }
            }
        }
    }
    Ok(rows_of(count, &contenders, &rates))
}

fn rows_of(count: u32, contenders: &[Contender], rates: &BTreeMap<(Mode, Way), Vec<f64>>) -> Vec<Row> {
    let rate = |mode, way| rates.get(&(mode, way)).cloned().map(median);
    let mut rows = Vec::new();
    for (mode, what) in MODES {
        let ours = rate(mode, Way::Ours);
        for contender in contenders.iter().filter(|contender| contender.way != Way::Ours) {
            let goal = match (mode, contender.way) {
                (Mode::Connect, Way::Direct) => Goal::RatioAtLeast(0.97),
                (Mode::Exchange, Way::Direct) => Goal::RatioAtLeast(1.0),
                (Mode::Connect, Way::Nftables) if count == OTHERS_MOST => Goal::RatioAtLeast(1.2),
                (Mode::Connect, Way::IptablesLegacy) if count == OTHERS_MOST => Goal::RatioAtLeast(20.0),
                _ => Goal::None,
            };
            let metric = format!("{count} services: {what}, beside {}", contender.way.name());
            rows.push(Row::new(metric, "/s", (ours, rate(mode, contender.way)), goal));
        }
    }
    let find = |way| contenders.iter().find(|contender| contender.way == way);
    let ours = find(Way::Ours);
    for way in [Way::Nftables, Way::IptablesNft, Way::IptablesLegacy] {
        let Some(peer) = find(way) else { continue };
        let name = way.name();
        let pair = |of: fn(&Contender) -> Option<f64>| (ours.and_then(of), of(peer));
        let load = pair(|contender| contender.load.map(|seconds| seconds * 1e3));
        let change = pair(|contender| contender.change.map(|seconds| seconds * 1e6));
        rows.push(Row::new(format!("{count} services: load, beside {name}"), "ms", load, Goal::None));
        rows.push(Row::new(format!("{count} services: one change, beside {name}"), "us", change, Goal::None));
    }
    rows
}

impl Contender {
    fn start(way: Way, count: u32) -> Result<Self> {
        let network = Network::start(1, 2)?;
        let node = network.lab.host("a1")?;
        let backends = network.backends(1, 2)?;
        let (two, three) = (&backends[..2], &backends[..]);
        let change = |backends| Service { number: count / 2, backends };
        let restore = |tool: &str, text: &str| {
            feed(&node, &format!("iptables-{tool}-restore"), &["--wait", "5", "--noflush"], text)
        };
        let nft = |text: &str| feed(&node, "nft", &["-f", "-"], text);
        let mut datapath = None;
        let (load, change) = match way {
            Way::Direct => (None, None),
            Way::Tracked => {
                restore("legacy", TRACKING)?;
                (None, None)
            }
            Way::Ours => {
                let (opened, load, change) = ours(&network, count, three)?;
                datapath = Some(opened);
                (Some(load), Some(change))
            }
            Way::Nftables => {
                let whole = kube_proxy::nftables(count, three);
                let load = timed(|| nft(&whole))?;
                let changes = [two, three].map(|backends| kube_proxy::nftables_change(change(backends)));
                (Some(load), Some(best(&changes, nft)?))
            }
            Way::IptablesNft | Way::IptablesLegacy => {
                let tool = if way == Way::IptablesNft { "nft" } else { "legacy" };
                let whole = kube_proxy::iptables(count, three);
                let load = timed(|| restore(tool, &whole))?;
                let changes =
                    [two, three].map(|backends| kube_proxy::iptables_change(count, change(backends)));
                (Some(load), Some(best(&changes, |text| restore(tool, text))?))
            }
        };
        if !matches!(way, Way::Direct | Way::Ours) {
            // Connections that were reset would fill the kernel's table within a run.
            node.inside(|| std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "1"))??;
        }
        let to = match way {
            Way::Direct | Way::Tracked => backends[0].into(),
            _ => SocketAddr::from((service_address(count - 1), SERVICE_PORT)),
        };
        Ok(Self { way, network, to, load, change, _datapath: datapath })
    }
}

/// Our datapath with all services, and the seconds of map work for all of them and for a change of one.
fn ours(network: &Network, count: u32, backends: &[SocketAddrV4]) -> Result<(Datapath, f64, f64)> {
    let sizes = MapSizes { services: count, backends: 4 * count + 1024, ..MapSizes::default() };
    let mut datapath = take_over(network, 1, 2, sizes)?;
    let run: Vec<Backend> = backends
        .iter()
        .map(|backend| Backend::new((*backend.ip()).into(), backend.port().to_be_bytes(), 1))
        .collect();
    let key = |number| ServiceKey {
        address: service_address(number).into(),
        port: SERVICE_PORT.to_be_bytes(),
        protocol: TCP,
        scope: 0,
    };
    let settings = |number| ServiceSettings { service: number + 1, ..ServiceSettings::default() };
    let all = (0..count).map(|number| (key(number), (settings(number), run.as_slice()))).collect();
    let start = Instant::now();
    datapath.services().load(&all)?;
    let load = start.elapsed().as_secs_f64();
    let changes = (0..CHANGES).map(|turn| {
        let backends = if turn % 2 == 0 { &run[..2] } else { &run[..] };
        let start = Instant::now();
        datapath.services().set(key(count / 2), settings(count / 2), backends)?;
        Ok(start.elapsed().as_secs_f64())
    });
    let change = median(changes.collect::<Result<_>>()?);
    Ok((datapath, load, change))
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The shorter of two changes there and back: of others the best, since starting a program is not their rules' fault.
fn best(changes: &[String; 2], apply: impl Fn(&str) -> Result<()>) -> Result<f64> {
    let times = changes.iter().chain(changes).map(|text| timed(|| apply(text)));
    Ok(times.collect::<Result<Vec<_>>>()?.into_iter().fold(f64::INFINITY, f64::min))
}

//! Probes of other nodes: echo requests over the path that pods' traffic takes, to addresses that kernels answer.
//!
//! ```text
//! targets ──► Prober (pure) ── probes ──► raw ICMP socket at the router address ──► lb_vxlan ──► node
//!               ▲    └── Health ──► reconciler, report                                            │
//!               └────────────────────────── answers ◄─────────────────────────────────────────────┘
//! ```
//!
//! The agent of the other node takes no part: while it restarts, its kernel answers.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use landbridge_agent_mesh::{HealthOptions, NodeRef, Path, Probe, Prober, Reachability};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::icmp::Echo;

/// Who is probed, and where.
pub(crate) type Targets = BTreeMap<NodeRef, IpAddr>;

/// What the probes say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Health {
    /// Who does not answer.
    pub(crate) reachability: Reachability,
    /// Each path.
    pub(crate) paths: BTreeMap<NodeRef, Path>,
    /// Whether every target has answered or had the time to; never before there were targets to set.
    pub(crate) settled: bool,
}

/// Longest time between two looks at the clock when there is nothing to probe.
const IDLE: Duration = Duration::from_secs(1);
/// How often it is told how long answers take.
const PATHS_INTERVAL: Duration = Duration::from_millis(500);
/// Answers that are read before probes are looked at again, so that a flood of packets does not stop them.
const ANSWERS_AT_ONCE: usize = 256;
/// Larger ICMP packets than an answer are cut; they are nobody's.
const PACKET_LEN: usize = 256;

/// Probes targets until it is stopped.
pub(crate) struct HealthTask {
    /// A raw socket: what tokio needs of a UDP socket holds for it too, and it gives packets with their IPv4 header.
    socket: UdpSocket,
    echo: Echo,
    prober: Prober,
    /// Who is at an address.
    nodes: BTreeMap<Ipv4Addr, NodeRef>,
    targets: watch::Receiver<Targets>,
    /// Whether targets were set, be it none.
    has_targets: bool,
    health: watch::Sender<Health>,
    /// When paths were told of last.
    paths_at: Option<Instant>,
}

impl HealthTask {
    /// Opens the socket at `router`, the node's address among pods. `targets` counts once it changes.
    ///
    /// # Errors
    /// The system's, without `CAP_NET_RAW` or without the address.
    pub(crate) fn new(
        router: Ipv4Addr,
        targets: watch::Receiver<Targets>,
    ) -> io::Result<(Self, watch::Receiver<Health>)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?;
        bind(&socket, &SocketAddrV4::new(router, 0))?;
        let (health, reports) = watch::channel(Health::default());
        let [.., high, low] = std::process::id().to_be_bytes();
        let task = Self {
            socket: UdpSocket::from_std(socket.into())?,
            echo: Echo {
                identifier: u16::from_be_bytes([high, low]),
                secret: RandomState::new().hash_one(router),
            },
            prober: Prober::new(HealthOptions::default()),
            nodes: BTreeMap::new(),
            targets,
            has_targets: false,
            health,
            paths_at: None,
        };
        Ok((task, reports))
    }

    /// Probes until `stop`.
    ///
    /// # Errors
    /// The system's, if the socket breaks.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        loop {
            let wake_at = self.prober.next_deadline().unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.targets.changed() => {
                    self.set_targets();
                }
                readable = self.socket.readable() => {
                    readable?;
                    self.read_answers()?;
                }
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
            for probe in self.prober.due(Instant::now()) {
                self.send(&probe);
            }
            self.publish();
        }
    }

    fn set_targets(&mut self) {
        self.has_targets = true;
        let targets = self.targets.borrow_and_update().clone();
        let v4 = targets.iter().filter_map(|(node, address)| match address {
            IpAddr::V4(address) => Some((*address, node.clone())),
            IpAddr::V6(_) => None,
        });
        self.nodes = v4.collect();
        let probed = self.nodes.iter().map(|(address, node)| (node.clone(), IpAddr::V4(*address)));
        self.prober.set_targets(Instant::now(), probed.collect());
    }

    fn send(&self, probe: &Probe) {
        let IpAddr::V4(address) = probe.address else { return };
        let request = self.echo.request(probe.sequence);
        if let Err(error) = self.socket.try_send_to(&request, SocketAddrV4::new(address, 0).into()) {
            // As good as lost on the way: the prober counts it.
            debug!(node = %probe.target, %address, %error, "probe not sent");
        }
    }

    fn read_answers(&mut self) -> io::Result<()> {
        let mut packet = [0; PACKET_LEN];
        for _ in 0..ANSWERS_AT_ONCE {
            let len = match self.socket.try_recv(&mut packet) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // What a router said of an earlier packet is no fault of the socket's.
                Err(error) if is_of_the_path(&error) => continue,
                Err(error) => return Err(error),
            };
            if let Some((source, sequence)) = self.echo.answer(&packet[..len])
                && let Some(node) = self.nodes.get(&source)
            {
                self.prober.answered(Instant::now(), node, sequence);
            }
        }
        Ok(())
    }

    /// Tells of a change of reachability at once, of the paths from time to time.
    fn publish(&mut self) {
        let reachability = self.prober.reachability();
        let settled = self.has_targets && self.prober.is_settled();
        let paths_are_due = self.paths_at.is_none_or(|at| at.elapsed() >= PATHS_INTERVAL);
        let before = self.health.borrow();
        let changed = before.reachability != reachability || before.settled != settled;
        if !changed && !paths_are_due {
            return;
        }
        log_changes(&before.reachability, &reachability);
        drop(before);
        self.paths_at = Some(Instant::now());
        self.health.send_replace(Health { reachability, paths: self.prober.paths(), settled });
    }
}

fn is_of_the_path(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | Interrupted | NetworkUnreachable)
}

fn log_changes(before: &Reachability, now: &Reachability) {
    for node in now.unreachable.difference(&before.unreachable) {
        warn!(%node, "node does not answer probes, its backends are left out while others are healthy");
    }
    for node in before.unreachable.difference(&now.unreachable) {
        info!(%node, "node answers probes again");
    }
}

//! The one writer of the node's maps and routes: keeps them as the records, this node's pods and the probes say.
//!
//! ```text
//! feeds ── events ───┐
//! node API, report ──┼─► Reconciler: Mesh (pure) ─ desired ─► diff ─► maps, routes
//! probes ── Health ──┘        └─► View: targets of probes, what is applied
//! ```
//!
//! - Nothing is written before all feeds were told whole once, but what this node knows by itself: an endpoint that is
//!   gone is gone. So maps that were taken over stay as they are for as long as the store is not there.
//! - Where maps were taken over, the first pass also waits for the probes: what a prober that knows nothing yet would
//!   say of a dead node is wrong.
//! - Events are read in batches, and a pass takes at most half of the time, so that a flood of events makes passes
//!   larger and not more.

mod endpoints;
mod maps;
mod pass;
mod published;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use landbridge_agent_mesh::{Local, Mesh, Problem, Reachability};
use landbridge_bpf_loader::Datapath;
use landbridge_kvstore_client::FeedEvent;
use landbridge_kvstore_schema::{ClusterName, IpPrefix, Keyspace};
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(crate) use requests::{Connection, Drops, NodeError, NodeHandle};

use self::endpoints::Waiter;
use self::maps::Maps;
use self::published::PublishedAddresses;
use self::requests::Request;
use crate::endpoint::{Attachment, EndpointTable};
use crate::error_chain::chain;
use crate::feeds::{NumberedEvent, PREFIXES};
use crate::health::{Health, Targets};
use crate::netlink::Netlink;
use crate::node_network::{NodeNetwork, OVERLAY_INTERFACE};
use crate::routes::{self, RouteTable};
use crate::sockets::Namespaces;

/// Requests that may wait for their turn; further ones wait to be queued.
const REQUEST_QUEUE_LEN: usize = 64;
/// Events that may wait for their turn; when full, the feeds wait.
pub(crate) const EVENT_QUEUE_LEN: usize = 4096;
/// Events that are read before the maps are looked at.
const BATCH_LEN: usize = 4096;
/// Longest rest between two passes while events arrive.
const MAX_REST: Duration = Duration::from_millis(500);
/// Longest wait of the first pass for probes, where maps were taken over. A dead node is known after 1.65 s.
const SETTLE_DEADLINE: Duration = Duration::from_secs(3);
/// How often interfaces and routes are compared with what they should be.
const AUDIT_INTERVAL: Duration = Duration::from_secs(10);

/// What others may know of the reconciler's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The feeds that have been told whole at least once, out of all.
    pub(crate) complete_feeds: usize,
    /// The store's revision that is in the maps; 0 before anything is.
    pub(crate) applied_revision: i64,
    /// Other clusters whose records are in the maps as a whole.
    pub(crate) synced: Vec<ClusterName>,
    /// Pods that are served.
    pub(crate) endpoints: u32,
}

/// The interface that leads to other nodes is not the one that the agent started with.
#[derive(Debug, thiserror::Error)]
#[error("interface {OVERLAY_INTERFACE} is gone: start the agent again, which makes it anew")]
pub(crate) struct OverlayGone;

/// See the module.
pub(crate) struct Reconciler {
    mesh: Mesh,
    maps: Maps,
    table: EndpointTable,
    published: PublishedAddresses,
    /// Indices of the interfaces of activated endpoints.
    interfaces: BTreeMap<Attachment, u32>,
    netlink: Netlink,
    network: NodeNetwork,
    /// Our routes in the kernel.
    routes: RouteTable,
    /// Destinations whose routes the kernel refused to change in the last pass.
    refused_routes: BTreeSet<IpPrefix>,
    /// Map writes that failed in the last pass.
    unwritten: usize,
    waiters: Vec<Waiter>,
    /// The revision up to which each feed has told everything.
    positions: [Option<i64>; PREFIXES.len()],
    /// The feeds whose connection is lost.
    lost: BTreeSet<usize>,
    problems: BTreeSet<Problem>,
    /// What the probes said last.
    reachability: Reachability,
    /// Whether the first pass may be made; see the module.
    start: Start,
    /// Something has changed since the last pass.
    dirty: bool,
    rest_until: Instant,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Receiver<NumberedEvent>,
    health: watch::Receiver<Health>,
    targets: watch::Sender<Targets>,
    view: watch::Sender<View>,
    /// Has sockets looked at.
    looks: watch::Sender<Namespaces>,
    /// There is reason to look at sockets: something that they may rely on has gone since the last time.
    look_due: bool,
}

/// How far the first pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Not all feeds have told everything. `took_over` if the maps were not empty.
    Reading { took_over: bool },
    /// Everything is told; the probes have until then.
    Settling { deadline: Instant },
    /// Passes are made.
    Running,
}

/// What a reconciler starts from.
pub(crate) struct Parts {
    /// Which node this is.
    pub(crate) local: Local,
    /// The datapath, in place.
    pub(crate) datapath: Datapath,
    /// The endpoints that were kept.
    pub(crate) table: EndpointTable,
    /// Requests to the node's namespace.
    pub(crate) netlink: Netlink,
    /// The node's interfaces.
    pub(crate) network: NodeNetwork,
    /// What the feeds tell.
    pub(crate) events: mpsc::Receiver<NumberedEvent>,
    /// Gets who is to be probed.
    pub(crate) targets: watch::Sender<Targets>,
    /// What the probes say.
    pub(crate) health: watch::Receiver<Health>,
    /// Is told when sockets are to be looked at, and where.
    pub(crate) looks: watch::Sender<Namespaces>,
}

impl Reconciler {
    /// Reads back maps and routes and serves the endpoints that were served before.
    ///
    /// # Errors
    /// What keeps maps, routes or endpoints from being read.
    pub(crate) async fn start(parts: Parts) -> anyhow::Result<(Self, NodeHandle, watch::Receiver<View>)> {
        let maps = block_in_place(|| Maps::read(parts.datapath))?;
        let took_over = !maps.actual().nodes.is_empty() || !maps.actual().services.is_empty();
        let routes = routes::read(&parts.netlink).await?;
        let (sender, requests) = mpsc::channel(REQUEST_QUEUE_LEN);
        let (view, views) = watch::channel(View::default());
        let keyspace = Keyspace::state(parts.local.cluster.clone());
        let mut reconciler = Self {
            published: PublishedAddresses::new(keyspace, parts.table.cidr()),
            mesh: Mesh::new(parts.local, &maps.actual().nodes),
            maps,
            table: parts.table,
            interfaces: BTreeMap::new(),
            netlink: parts.netlink,
            network: parts.network,
            routes,
            refused_routes: BTreeSet::new(),
            unwritten: 0,
            waiters: Vec::new(),
            positions: [None; PREFIXES.len()],
            lost: BTreeSet::new(),
            problems: BTreeSet::new(),
            reachability: Reachability::default(),
            start: Start::Reading { took_over },
            dirty: true,
            rest_until: Instant::now(),
            requests,
            events: parts.events,
            health: parts.health,
            targets: parts.targets,
            view,
            looks: parts.looks,
            look_due: true,
        };
        reconciler.restore_endpoints().await?;
        reconciler.pass().await;
        Ok((reconciler, NodeHandle::new(sender), views))
    }

    /// Keeps the node as it should be until `stop`; then everything stays as it is.
    ///
    /// # Errors
    /// [`OverlayGone`].
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), OverlayGone> {
        let mut batch = Vec::with_capacity(BATCH_LEN);
        let mut audit = interval(AUDIT_INTERVAL);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake_at = self.wake_at();
            let feeds_ended = self.events.is_closed() && self.events.is_empty();
            let urgent = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(request) = self.requests.recv() => {
                    self.handle(request).await;
                    true
                }
                Ok(()) = self.health.changed() => self.look_at_health(),
                _ = self.events.recv_many(&mut batch, BATCH_LEN), if !feeds_ended => {
                    for (feed, event) in batch.drain(..) {
                        self.take(feed, event);
                    }
                    false
                }
                _ = audit.tick() => {
                    self.audit().await?;
                    false
                }
                () = sleep_until(wake_at) => false,
            };
            if self.dirty && (urgent || Instant::now() >= self.rest_until) {
                self.pass().await;
            } else if urgent {
                // What is asked for may be there already.
                self.answer_waiters();
            }
            self.publish();
        }
    }

    fn wake_at(&self) -> Instant {
        let deadline = match self.start {
            Start::Settling { deadline } => Some(deadline),
            Start::Reading { .. } | Start::Running => None,
        };
        let rest = self.dirty.then_some(self.rest_until);
        deadline.into_iter().chain(rest).min().unwrap_or_else(|| Instant::now() + AUDIT_INTERVAL)
    }

    /// Takes one event of a feed into the mesh.
    fn take(&mut self, feed: usize, event: FeedEvent) {
        if let FeedEvent::Lost { error } = event {
            if self.lost.is_empty() {
                warn!(
                    prefix = PREFIXES[feed],
                    error = chain(&error),
                    "store lost, the datapath stays as it is"
                );
            }
            self.lost.insert(feed);
            return;
        }
        if self.lost.remove(&feed) && self.lost.is_empty() {
            info!("store found again");
        }
        let (applied, revision) = match event {
            FeedEvent::Upsert(entry) => {
                self.published.note(&entry.key, true);
                (self.mesh.apply(&entry.key, Some(&entry.value)), Some(entry.mod_revision))
            }
            FeedEvent::Delete { key, revision } => {
                self.published.note(&key, false);
                (self.mesh.apply(&key, None), Some(revision))
            }
            FeedEvent::Synced { revision } => {
                self.told_whole(feed, revision);
                return;
            }
            FeedEvent::Progress { revision } => {
                self.advance(feed, revision);
                return;
            }
            FeedEvent::Lost { .. } => return,
        };
        if let Err(refused) = applied {
            // Each problem that lasts is told once, after the pass.
            tracing::debug!(reason = refused.reason(), error = %refused, "record refused");
        }
        if let Some(revision) = revision {
            self.advance(feed, revision);
        }
        self.dirty = true;
    }

    /// Before its first list is told whole, a feed has no position.
    fn advance(&mut self, feed: usize, revision: i64) {
        if let Some(position) = &mut self.positions[feed] {
            *position = revision.max(*position);
        }
    }

    fn told_whole(&mut self, feed: usize, revision: i64) {
        // Not the larger of both: a store that was restored from a backup counts from an earlier one.
        self.positions[feed] = Some(revision);
        self.dirty = true;
        let Start::Reading { took_over } = self.start else { return };
        if self.positions.contains(&None) {
            return;
        }
        info!(revision, "store read");
        self.mesh.set_complete(true);
        self.check_pod_cidr();
        self.start = if took_over {
            // The prober is to know that it has been told of everybody, be it nobody.
            self.targets.send_replace(self.wanted_targets());
            Start::Settling { deadline: Instant::now() + SETTLE_DEADLINE }
        } else {
            // Probes need the maps; they begin after the first pass.
            Start::Running
        };
    }

    /// The range that this node's pods have is the one that it was given first.
    fn check_pod_cidr(&self) {
        let kept = self.table.cidr().prefix();
        let node = self.mesh.own_node();
        let published = node.and_then(|node| node.ipv4_pod_cidrs.first());
        if published.is_some_and(|published| *published != kept) {
            error!(
                %kept, published = ?published.map(ToString::to_string),
                "the node has another PodCIDR now: drain it, stop the agent and remove its state dir"
            );
        }
    }

    /// Takes over what the probes say. Returns whether something has to be written soon.
    fn look_at_health(&mut self) -> bool {
        let health = self.health.borrow_and_update();
        let settles = health.settled && matches!(self.start, Start::Settling { .. });
        let changed = health.reachability != self.reachability;
        if changed {
            self.reachability.clone_from(&health.reachability);
            self.mesh.set_reachable(&self.reachability);
            self.look_due = true;
        }
        if settles {
            self.start = Start::Running;
        }
        self.dirty |= changed || settles;
        changed || settles
    }

    /// Looks for what others have changed: interfaces that went with their pods, routes that were removed.
    ///
    /// # Errors
    /// [`OverlayGone`]: with it went programs and addresses, which are put in place at the start.
    async fn audit(&mut self) -> Result<(), OverlayGone> {
        match self.netlink.interface(OVERLAY_INTERFACE).await {
            Ok(Some(overlay)) if overlay.index == self.network.overlay => {
                if !overlay.up && self.netlink.set_up(overlay.index, None).await.is_ok() {
                    warn!(interface = OVERLAY_INTERFACE, "was switched off, is switched on again");
                }
            }
            Ok(_) => return Err(OverlayGone),
            Err(error) => {
                warn!(error = chain(&error), "overlay not looked at");
            }
        }
        if let Err(error) = self.drop_gone_endpoints().await {
            warn!(error = chain(&error), "endpoints not compared with interfaces");
        }
        match routes::read(&self.netlink).await {
            Ok(routes) => {
                self.routes = routes;
                self.dirty |= !routes::plan(&self.desired_routes(), &self.routes).is_empty();
            }
            Err(error) => {
                warn!(error = chain(&error), "routes not compared");
            }
        }
        Ok(())
    }

    fn publish(&self) {
        let running = self.start == Start::Running && !self.dirty;
        let applied = self.positions.iter().copied().collect::<Option<Vec<_>>>();
        let applied = applied.and_then(|positions| positions.into_iter().min());
        let served = self.maps.actual().endpoints.len();
        self.view.send_if_modified(|view| {
            let now = View {
                complete_feeds: self.positions.iter().flatten().count(),
                applied_revision: applied.filter(|_| running).unwrap_or(view.applied_revision),
                synced: if running { self.mesh.synced_clusters() } else { view.synced.clone() },
                endpoints: u32::try_from(served).unwrap_or(u32::MAX),
            };
            let changed = *view != now;
            *view = now;
            changed
        });
    }
}

//! The clusters that this one reads: a reader for each, and what they may publish.
//!
//! ```text
//! landbridge/config/peers/<peer> ─► Reader ─► cilium/cache/…/<peer>/…      while the record is there
//!                        gone ────► drain
//! ```
//!
//! - What a peer says is taken only within `admit`'s bounds.
//! - The record says whom to read; the key to do so is on this disk (`key_files`).
//! - A peer that does not answer is kept. Only one whose record is gone is drained, by the replica that publishes.

pub mod addresses;
pub mod admit;
pub mod compatibility;
mod drain;
pub mod key_files;
pub mod mirror;
mod reader;
pub mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use landbridge_kvstore_client::{ClientOptions, KvClient};
use landbridge_kvstore_schema::{ClusterId, ClusterName, Keyspace, Node, ObjectName, Origin, Peer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

pub(crate) use self::drain::mirrored_clusters;

use self::addresses::{Addresses, AddressesByCluster, Ranges};
use self::admit::Bounds;
use self::key_files::KeyFiles;
use self::reader::Reader;
use self::state::{PeerState, Phase};
use crate::store::{OwnRecords, Records, chain, client_files, first};

/// How long one request to a peer's store may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often readers are looked after, and what failed is tried again.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// What readers of peers need.
#[derive(Clone, Debug)]
pub struct PeersContext {
    /// Client of the own store.
    pub own: KvClient,
    /// This cluster.
    pub origin: Origin,
    /// Its ranges.
    pub ranges: Ranges,
    /// What the own store says.
    pub records: OwnRecords,
    /// Keys to show to peers.
    pub keys: KeyFiles,
    /// Whether this replica publishes.
    pub publishes: watch::Receiver<bool>,
}

/// How the reading of each peer is going.
pub type PeerStates = watch::Receiver<BTreeMap<ClusterName, watch::Receiver<PeerState>>>;

/// Reads the peers for as long as it is polled.
///
/// # Errors
/// If a reader ended by itself, or the own store is no longer followed.
pub async fn run(
    context: PeersContext,
    states: watch::Sender<BTreeMap<ClusterName, watch::Receiver<PeerState>>>,
) -> anyhow::Result<()> {
    let (mut peers, mut nodes) = (context.records.peers.clone(), context.records.nodes.clone());
    let mut publishes = context.publishes.clone();
    first(&mut peers).await.context("the peers are not followed")?;
    first(&mut nodes).await.context("the own nodes are not followed")?;

    let mut readers = Readers { context, running: BTreeMap::new(), states, is_drain_due: true };
    let mut ticks = interval(LOOK_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let known = (peers.borrow_and_update().clone(), nodes.borrow_and_update().clone());
        let (Some(known_peers), Some(known_nodes)) = known else { bail!("the own store is not followed") };
        readers.reconcile(&known_peers, &known_nodes).await?;
        tokio::select! {
            changed = peers.changed() => changed.context("the peers are not followed")?,
            changed = nodes.changed() => changed.context("the own nodes are not followed")?,
            changed = publishes.changed() => {
                changed.context("nobody says any more who publishes")?;
                readers.is_drain_due = true;
            }
            _ = ticks.tick() => {}
        }
    }
}

struct Readers {
    context: PeersContext,
    running: BTreeMap<ClusterName, Running>,
    states: watch::Sender<BTreeMap<ClusterName, watch::Receiver<PeerState>>>,
    is_drain_due: bool,
}

/// A reader, which ends with this.
struct Running {
    peer: Peer,
    bounds: watch::Sender<Bounds>,
    state: watch::Receiver<PeerState>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Readers {
    async fn reconcile(
        &mut self,
        peers: &Arc<Records<ClusterName, Peer>>,
        nodes: &Arc<Records<ObjectName, Node>>,
    ) -> anyhow::Result<()> {
        if let Some((name, _)) = self.running.iter().find(|(_, running)| running.task.is_finished()) {
            bail!("the reader of cluster {name} ended by itself");
        }
        let is_same = |name: &ClusterName, running: &Running| {
            peers.records.get(name).is_some_and(|peer| connection(peer) == connection(&running.peer))
        };
        let gone: Vec<_> = self.running.iter().filter(|(name, running)| !is_same(name, running)).collect();
        let gone: Vec<_> = gone.into_iter().map(|(name, _)| name.clone()).collect();
        for name in gone {
            let mut running = self.running.remove(&name).expect("it was just seen");
            running.task.abort();
            // What it was writing is done or not done, and nothing comes after the drain.
            let _ = (&mut running.task).await;
            self.is_drain_due |= !peers.records.contains_key(&name);
        }
        let own = Addresses::of_own(&self.context.ranges, nodes.records.values());
        for (name, peer) in &peers.records {
            let bounds = match bounds(&self.context.origin, &own, &peers.records, name) {
                Ok(bounds) => bounds,
                Err(error) => {
                    warn!(cluster = %name, error = chain(&error), "cannot read a peer with an id outside of the mesh");
                    continue;
                }
            };
            if let Some(running) = self.running.get_mut(name) {
                running.peer = peer.clone();
                running.bounds.send_if_modified(|current| {
                    let is_other = *current != bounds;
                    *current = bounds;
                    is_other
                });
            } else {
                let running = self.start(name, peer, bounds);
                self.running.insert(name.clone(), running);
            }
        }
        self.drain_former(peers).await;
        let states: BTreeMap<_, _> =
            self.running.iter().map(|(name, running)| (name.clone(), running.state.clone())).collect();
        self.states.send_if_modified(|current| {
            let is_other = !current.keys().eq(states.keys())
                || current.iter().any(|(name, state)| !states[name].same_channel(state));
            *current = states;
            is_other
        });
        Ok(())
    }

    fn start(&self, name: &ClusterName, peer: &Peer, bounds: Bounds) -> Running {
        let (bounds, bounds_in) = watch::channel(bounds);
        let (state_out, state) = watch::channel(PeerState::new());
        let client = KvClient::new(ClientOptions {
            endpoints: peer.endpoints.clone(),
            tls: Some(client_files(self.context.keys.of(name))),
            request_timeout: REQUEST_TIMEOUT,
        });
        let task = match client {
            Ok(client) => tokio::spawn(
                Reader {
                    name: name.clone(),
                    peer: client,
                    own: self.context.own.clone(),
                    bounds: bounds_in,
                    publishes: self.context.publishes.clone(),
                    state: state_out,
                }
                .run(),
            ),
            Err(error) => {
                let waiting_for = format!("an endpoint that can be used: {}", chain(&error));
                tokio::spawn(async move {
                    state_out.send_modify(|state| state.phase = Phase::Connecting { waiting_for });
                    std::future::pending::<()>().await;
                })
            }
        };
        Running { peer: peer.clone(), bounds, state, task }
    }

    /// Removes what clusters told us that are no peers any more. What fails is tried again.
    async fn drain_former(&mut self, peers: &Records<ClusterName, Peer>) {
        if !self.is_drain_due || !*self.context.publishes.borrow() {
            return;
        }
        let drained = async {
            let own = &self.context.own;
            let is_former = |name: &ClusterName| {
                *name != self.context.origin.keyspace.cluster
                    && !peers.records.contains_key(name)
                    && !peers.unreadable.contains_key(&Peer::key(name).to_string())
            };
            for name in mirrored_clusters(own).await?.iter().filter(|name| is_former(name)) {
                drain::drain(own, name).await?;
            }
            Ok::<_, landbridge_kvstore_client::ClientError>(())
        };
        match drained.await {
            Ok(()) => self.is_drain_due = false,
            Err(error) => warn!(error = chain(&error), "cannot remove what a former peer told us"),
        }
    }
}

/// What a reader is made with; the rest of a record can change while it reads.
fn connection(peer: &Peer) -> (u16, &[String], &str) {
    (peer.id, &peer.endpoints, &peer.ca_certificate)
}

/// What `name` may publish, given everybody's addresses.
fn bounds(
    own: &Origin,
    own_addresses: &Addresses,
    peers: &BTreeMap<ClusterName, Peer>,
    name: &ClusterName,
) -> Result<Bounds, landbridge_kvstore_schema::InvalidClusterId> {
    let peer = &peers[name];
    let cluster_id = ClusterId::new(peer.id.into(), own.cluster_id.max_clusters())?;
    let others = peers.iter().filter(|(other, _)| *other != name);
    let mut taken: AddressesByCluster =
        others.map(|(other, peer)| (other.clone(), Addresses::of_peer(peer))).collect();
    taken.insert(own.keyspace.cluster.clone(), own_addresses.clone());
    let origin = Origin { keyspace: Keyspace::state(name.clone()), cluster_id };
    Ok(Bounds { origin, pod_ranges: peer.pod_ranges.clone(), taken })
}

//! What the node sees, written to the store for clusterctl and the apiserver.
//!
//! The report has a lease, so that a node whose agent is gone has none.

use std::collections::BTreeMap;
use std::time::Duration;

use landbridge_bpf_maps::Direction;
use landbridge_kvstore_client::{ClientError, KvClient, LeaseKeeper};
use landbridge_kvstore_schema::{ClusterName, DropCount, NodeReport, ObjectName, OwnRecord, PathReport};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error_chain::chain;
use crate::health::Health;
use crate::reconciler::{Drops, NodeError, NodeHandle, View};

/// How often the node is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest time between two reports that say the same.
const UNCHANGED_INTERVAL: Duration = Duration::from_secs(5);
/// How long a report outlives its agent.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// How long a look at the node may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// How long the agent's end may wait for the report to be taken back.
const REVOKE_DEADLINE: Duration = Duration::from_secs(1);

/// Writes the report.
pub(crate) struct Reporter {
    client: KvClient,
    key: String,
    node: NodeHandle,
    view: watch::Receiver<View>,
    health: watch::Receiver<Health>,
    lease: Option<LeaseKeeper>,
    last: Option<(NodeReport, Instant)>,
    /// Whether the last attempt failed, so that an outage is told once.
    failing: bool,
}

impl Reporter {
    /// A reporter for `node`.
    pub(crate) fn new(
        client: KvClient,
        name: &ObjectName,
        node: NodeHandle,
        view: watch::Receiver<View>,
        health: watch::Receiver<Health>,
    ) -> Self {
        let key = NodeReport::key(name).to_string();
        Self { client, key, node, view, health, lease: None, last: None, failing: false }
    }

    /// Reports until `stop`, and then takes the report back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = lost(&mut self.lease) => {
                    self.lease = None;
                    self.last = None;
                }
                _ = ticks.tick() => tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.report() => {}
                },
            }
        }
        if let Some(lease) = self.lease.take() {
            // If it is too late for that, the lease expires.
            let _ = timeout(REVOKE_DEADLINE, lease.revoke()).await;
        }
    }

    async fn report(&mut self) {
        let drops = match timeout(LOOK_DEADLINE, self.node.drops()).await {
            Ok(Ok(drops)) => drops,
            // The agent ends.
            Ok(Err(NodeError::Stopping)) => return,
            Ok(Err(error)) => return self.withdraw(&chain(&error)),
            Err(_) => return self.withdraw("the reconciler does not answer"),
        };
        let report = self.look(drops);
        if let Some((last, at)) = &self.last
            && *last == report
            && at.elapsed() < UNCHANGED_INTERVAL
        {
            return;
        }
        match self.write(&report).await {
            Ok(()) => {
                if self.failing {
                    info!("node report written again");
                }
                self.failing = false;
                self.last = Some((report, Instant::now()));
            }
            Err(error) => {
                if !self.failing {
                    warn!(error = chain(&error), "node report not written, trying again");
                }
                self.failing = true;
            }
        }
    }

    /// Lets the report expire: what cannot be looked at is not reported as it was.
    fn withdraw(&mut self, error: &str) {
        if self.lease.take().is_some() {
            warn!(error, "node cannot be looked at, its report expires");
        }
        self.last = None;
    }

    async fn write(&mut self, report: &NodeReport) -> Result<(), ClientError> {
        let lease = match &self.lease {
            Some(lease) => lease.id(),
            None => self.lease.insert(self.client.keep_lease(LEASE_TTL).await?).id(),
        };
        let written = self.client.put(&self.key, report.encode(), Some(lease)).await;
        if matches!(written, Err(ClientError::LeaseNotFound { .. })) {
            self.lease = None;
        }
        written.map(drop)
    }

    fn look(&self, drops: Drops) -> NodeReport {
        let view = self.view.borrow().clone();
        let mut paths: BTreeMap<ClusterName, BTreeMap<ObjectName, PathReport>> = BTreeMap::new();
        for (node, path) in &self.health.borrow().paths {
            let round_trip = path.round_trip.unwrap_or_default().as_micros();
            let report = PathReport {
                reachable: path.reachable,
                round_trip_micros: u32::try_from(round_trip).unwrap_or(u32::MAX),
            };
            paths.entry(node.cluster.clone()).or_default().insert(node.node.clone(), report);
        }
        NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied_revision: view.applied_revision,
            synced: view.synced,
            paths,
            endpoints: view.endpoints,
            drops: drops.into_iter().map(drop_count).collect(),
        }
    }
}

fn drop_count(
    (reason, direction, count): (landbridge_bpf_maps::Reason, Direction, landbridge_bpf_maps::TrafficCount),
) -> DropCount {
    DropCount {
        reason: reason.0,
        name: reason.name().to_owned(),
        direction: match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
        .to_owned(),
        packets: count.packets,
        bytes: count.bytes,
    }
}

/// Resolves when the lease is gone; never without one.
async fn lost(lease: &mut Option<LeaseKeeper>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}

//! Reads one peer and keeps its copy.
//!
//! ```text
//! cluster config ─► canaries ─► feed of cilium/state/ ─► Mirror ─ writes ─► own store
//!   is it the one      is it      list, then changes       admit              config, records, canaries
//!   agreed on?         whole?
//! beside: a probe each second: revision, round trip, last heard
//! ```
//!
//! - While the peer does not answer, everything stays as it was and the state says since when. When it answers again
//!   nothing is written before it says that it is whole: a store that was wiped withdraws nothing.
//! - Agents find the config first and the canaries last, so that they never take half a cluster for a whole one.
//! - A write that failed makes a full pass due; a full pass makes whatever went wrong before right.
//! - Writes only while this replica publishes. Another replica reads as well, and is ready to take over.

mod copy;

use std::time::{Duration, Instant, SystemTime};

use landbridge_kvstore_client::{ClientError, Creation, FeedEvent, KvClient};
use landbridge_kvstore_schema::{
    ClusterConfig, ClusterName, Keyspace, cluster_config_key, rfc3339, synced_prefix,
};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use self::copy::{Copy, List};
use super::admit::{Bounds, KINDS};
use super::mirror::Mirror;
use super::state::{Outage, PeerState, Phase};
use crate::store::chain;

/// How often the peer's store is asked how it is.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How often the peer's config is read again.
const CONFIG_EVERY: Duration = Duration::from_secs(10);
/// How long to wait after something that another attempt may mend.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a list is made again that was cut for the limits.
const RELIST_EVERY: Duration = Duration::from_mins(1);
/// Everything that a cluster publishes of itself.
const STATE_PREFIX: &str = "cilium/state/";

/// Reads one peer and keeps its copy.
pub(super) struct Reader {
    /// The peer.
    pub name: ClusterName,
    /// The peer's store.
    pub peer: KvClient,
    /// The own store.
    pub own: KvClient,
    /// What may be taken.
    pub bounds: watch::Receiver<Bounds>,
    /// Whether this replica publishes.
    pub publishes: watch::Receiver<bool>,
    /// How it is going.
    pub state: watch::Sender<PeerState>,
}

impl Reader {
    /// Reads until it is dropped.
    pub(super) async fn run(self) {
        tokio::join!(self.probe(), self.read());
    }

    async fn probe(&self) {
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answer = self.peer.probe().await;
            let now = Instant::now();
            self.state.send_modify(|state| match &answer {
                Ok(probe) => {
                    if state.outage.take().is_some() {
                        info!(cluster = %self.name, "the peer's store answers again");
                    }
                    state.revision = probe.revision;
                    state.round_trip = Some(probe.round_trip);
                    state.heard = Some(now);
                }
                Err(error) => {
                    let message = chain(error);
                    if state.outage.is_none() {
                        warn!(cluster = %self.name, error = message, "the peer's store does not answer");
                    }
                    let since = state.outage.as_ref().map_or(now, |outage| outage.since);
                    state.outage = Some(Outage { since, message });
                }
            });
        }
    }

    async fn read(&self) {
        loop {
            let config = self.agreed_config().await;
            if config.capabilities.synced_canaries {
                self.await_canaries().await;
            }
            self.follow(&config).await;
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.state.send_if_modified(|state| {
            let is_other = state.phase != phase;
            if is_other {
                info!(cluster = %self.name, ?phase, "reading a peer");
                state.phase = phase;
            }
            is_other
        });
    }

    /// Waits until the peer's config says what was agreed on.
    async fn agreed_config(&self) -> ClusterConfig {
        loop {
            match self.config().await {
                Ok(config) => return config,
                Err(ConfigProblem::Unread(waiting_for) | ConfigProblem::NotAgreed(waiting_for)) => {
                    self.set_phase(Phase::Connecting { waiting_for });
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn config(&self) -> Result<ClusterConfig, ConfigProblem> {
        let agreed = self.bounds.borrow().origin.cluster_id;
        let read = self.peer.get(&cluster_config_key(&self.name)).await;
        let record = read.map_err(|error| ConfigProblem::Unread(format!("its config: {}", chain(&error))))?;
        let not_agreed = |problem| Err(ConfigProblem::NotAgreed(problem));
        let Some(record) = record else {
            let name = &self.name;
            return not_agreed(format!(
                "its config: its store has none for {name}; is its apiserver publishing?"
            ));
        };
        let config = match ClusterConfig::decode(&self.name, agreed.max_clusters(), &record.value) {
            Ok(config) => config,
            Err(error) => return not_agreed(format!("a valid config: {}", chain(&error))),
        };
        let id = config.id;
        if id != agreed {
            return not_agreed(format!(
                "its config to say id {agreed}, as agreed, and not {id}; disconnect and connect it again"
            ));
        }
        if config.capabilities.cached {
            return not_agreed(
                "records of its own: its store only mirrors it; connect the cluster itself".into(),
            );
        }
        Ok(config)
    }

    /// Waits until the peer says that all records of each kind are there.
    async fn await_canaries(&self) {
        let mut missing = self.canaries();
        let mut feed = self.peer.feed(synced_prefix(&self.name).as_str());
        while !missing.is_empty() {
            let waiting_for = format!("it to have published everything: {}", missing.join(", "));
            self.set_phase(Phase::Syncing { waiting_for });
            match feed.next().await {
                Some(FeedEvent::Upsert(canary)) => missing.retain(|key| *key != canary.key),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Keeps the copy, until the peer has to be looked at anew.
    async fn follow(&self, config: &ClusterConfig) {
        let (mut bounds, mut publishes) = (self.bounds.clone(), self.publishes.clone());
        let mut copy = Copy::new(Mirror::new(bounds.borrow_and_update().clone()), config);
        let mut feed = self.peer.feed(STATE_PREFIX);
        let mut ticks = interval(RETRY_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut config_read, opened) = (Instant::now(), Instant::now());
        self.set_phase(Phase::Syncing { waiting_for: "the list of its records".to_owned() });
        loop {
            tokio::select! {
                event = feed.next() => {
                    let Some(event) = event else { return };
                    copy.take(event);
                    copy.take_waiting(&mut feed);
                }
                changed = bounds.changed() => {
                    if changed.is_err() { return }
                    let writes = copy.mirror.rebound(bounds.borrow_and_update().clone());
                    copy.pending.extend(writes);
                }
                changed = publishes.changed() => {
                    if changed.is_err() { return }
                    copy.is_pass_due |= *publishes.borrow_and_update();
                }
                _ = ticks.tick() => {
                    if let Some(counts) = copy.changed_counts() {
                        self.state.send_modify(|state| state.counts = counts);
                    }
                    if config_read.elapsed() >= CONFIG_EVERY {
                        config_read = Instant::now();
                        match self.config().await {
                            Err(ConfigProblem::Unread(_)) => {} // the probe says what is wrong
                            read => if read.as_ref() != Ok(config) { return },
                        }
                    }
                    if copy.mirror.wants_relist() && opened.elapsed() >= RELIST_EVERY { return }
                    // Somewhat later than at once: what failed a moment ago fails again.
                    copy.may_write = true;
                }
            }
            if copy.list == List::InDoubt && copy.may_write {
                match self.is_still_whole(config).await {
                    Some(true) => copy.list = List::Whole,
                    Some(false) => return,
                    // What comes meanwhile is not kept twice.
                    None => (copy.may_write, copy.is_pass_due) = (false, true),
                }
            }
            if copy.list == List::Whole && copy.may_write {
                self.write(&mut copy).await;
            }
        }
    }

    /// Whether the peer says what it said before, and that all its records are there. `None` if it does not answer.
    async fn is_still_whole(&self, config: &ClusterConfig) -> Option<bool> {
        match self.config().await {
            Err(ConfigProblem::Unread(_)) => return None,
            read if read.as_ref() != Ok(config) => return Some(false),
            _ => {}
        }
        let there = self.peer.list(synced_prefix(&self.name).as_str()).await.ok()?.key_values;
        let is_there = |key: &String| there.iter().any(|canary| canary.key == *key);
        Some(!config.capabilities.synced_canaries || self.canaries().iter().all(is_there))
    }

    /// The keys by which the peer says that all records of each kind are there.
    fn canaries(&self) -> Vec<String> {
        let keyspace = self.bounds.borrow().origin.keyspace.clone();
        KINDS.iter().map(|kind| keyspace.canary(*kind)).collect()
    }

    async fn write(&self, copy: &mut Copy) {
        if !*self.publishes.borrow() {
            copy.pending.clear();
            copy.is_pass_due = true;
            // Nothing is missing here; what is in the store is the publisher's matter.
            self.set_phase(Phase::Synced);
            return;
        }
        let was_pass = copy.is_pass_due;
        let mut publishes = self.publishes.clone();
        let replaced = async { publishes.wait_for(|publishes| !publishes).await.map(drop) };
        let writing = async { if was_pass { self.full_pass(copy).await } else { self.apply(copy).await } };
        // Another replica may write as soon as this one does not publish any more.
        let written = tokio::select! {
            biased;
            _ = replaced => None,
            written = writing => Some(written),
        };
        match written {
            None => copy.is_pass_due = true,
            Some(Ok(())) => {
                let position = copy.position;
                self.state.send_if_modified(|state| {
                    let is_other = state.mirrored_revision != position;
                    state.mirrored_revision = position;
                    is_other
                });
                if was_pass && let Some(counts) = copy.changed_counts() {
                    self.state.send_modify(|state| state.counts = counts);
                }
                self.set_phase(Phase::Synced);
            }
            Some(Err(error)) => {
                warn!(cluster = %self.name, error = chain(&error), "cannot write a peer's records");
                copy.is_pass_due = true;
                copy.may_write = false;
                self.set_phase(Phase::Syncing { waiting_for: format!("the own store: {}", chain(&error)) });
            }
        }
    }

    async fn apply(&self, copy: &mut Copy) -> Result<(), ClientError> {
        if !copy.pending.is_empty() {
            self.own.apply(std::mem::take(&mut copy.pending)).await?;
        }
        Ok(())
    }

    /// Makes the copy what it has to be, whatever it is.
    async fn full_pass(&self, copy: &mut Copy) -> Result<(), ClientError> {
        copy.pending.clear();
        let config_key = cluster_config_key(&self.name);
        let written = self.own.get(&config_key).await?;
        if written.is_none_or(|written| *written.value != *copy.config) {
            self.own.put(&config_key, copy.config.clone(), None).await?;
        }
        let keyspace = Keyspace::cache(self.name.clone());
        let mut actual = Vec::new();
        for kind in KINDS {
            actual.extend(self.own.list(keyspace.watch_prefix(kind).as_str()).await?.key_values);
        }
        let actual = actual.iter().map(|record| (record.key.as_str(), &record.value[..]));
        let writes = copy.mirror.full_pass(actual);
        let count = writes.len();
        if count > 0 {
            self.own.apply(writes).await?;
        }
        for kind in KINDS {
            let now = rfc3339(SystemTime::now());
            if let Creation::Created { .. } = self.own.create(&keyspace.canary(kind), now, None).await? {
                info!(cluster = %self.name, %kind, "all records of a kind are there");
            }
        }
        copy.is_pass_due = false;
        info!(cluster = %self.name, writes = count, "compared a peer's copy");
        Ok(())
    }
}

/// Why a peer's config says nothing that can be relied on. Both say what is waited for.
#[derive(Debug, PartialEq)]
enum ConfigProblem {
    /// Its store did not answer.
    Unread(String),
    /// It is not the peer that it was when both were connected.
    NotAgreed(String),
}

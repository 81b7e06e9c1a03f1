//! Publishing from a look at the whole store until the store fails.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use landbridge_kvstore_client::{ClientError, Creation, KvClient, LeaseKeeper, Write};
use landbridge_kvstore_schema::{
    HEARTBEAT, Identity, IpPrefix, Labels, LandbridgeKey, NamespacedName, NumericIdentity, ObjectName,
    RecordName, pod_range_prefix, rfc3339, service_address_prefix,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::diff::{Stored, Withhold, diff, own_keys};
use super::publisher::Timing;
use super::records::{ClusterFacts, canaries, records, wanted_identities};
use super::state::{PublisherState, summaries};
use crate::identities::Allocation;
use crate::objects::Objects;
use crate::objects::fill_in::{Filled, Kept, fill_in};

/// How long a heartbeat stays without a publisher: no longer than readers wait for the next one.
const HEARTBEAT_TTL: Duration = Duration::from_mins(2);
/// How many identities are created at the same time.
const CREATIONS: usize = 64;

pub(super) struct Session<'a> {
    client: &'a KvClient,
    objects: &'a mut watch::Receiver<Arc<Objects>>,
    facts: &'a ClusterFacts,
    timing: Timing,
    state: &'a watch::Sender<PublisherState>,
    allocation: Allocation,
    kept: Kept,
    /// What the store has, as far as nobody else wrote to it.
    stored: Stored,
    revision: i64,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: &'a KvClient,
        objects: &'a mut watch::Receiver<Arc<Objects>>,
        facts: &'a ClusterFacts,
        timing: Timing,
        state: &'a watch::Sender<PublisherState>,
    ) -> Self {
        let allocation = Allocation::new(facts.origin.cluster_id);
        let (kept, stored) = (Kept::default(), Stored::new());
        Self { client, objects, facts, timing, state, allocation, kept, stored, revision: 0 }
    }

    /// # Errors
    /// [`ClientError`] if the store fails. What it then holds is not known, so that the session is over.
    pub(super) async fn run(mut self) -> Result<Infallible, ClientError> {
        self.look().await?;
        self.take_over();
        let heartbeat = self.client.keep_lease(HEARTBEAT_TTL).await?;
        self.beat(&heartbeat).await?;
        let mut full_passes = interval(self.timing.full_pass);
        full_passes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        full_passes.reset();
        let mut heartbeats = interval(self.timing.heartbeat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeats.reset();
        loop {
            self.reconcile(SystemTime::now()).await?;
            loop {
                tokio::select! {
                    Ok(()) = self.objects.changed() => {
                        sleep(self.timing.debounce).await;
                        break;
                    }
                    _ = full_passes.tick() => {
                        self.look().await?;
                        break;
                    }
                    _ = heartbeats.tick() => self.beat(&heartbeat).await?,
                }
            }
        }
    }

    async fn beat(&self, lease: &LeaseKeeper) -> Result<(), ClientError> {
        self.client.put(HEARTBEAT, rfc3339(SystemTime::now()), Some(lease.id())).await?;
        Ok(())
    }

    /// Reads what the store has under the publisher's keys.
    async fn look(&mut self) -> Result<(), ClientError> {
        let own = own_keys(&self.facts.origin.keyspace);
        let mut found = Vec::new();
        for prefix in &own.prefixes {
            let listing = self.client.list(prefix).await?;
            self.revision = listing.revision;
            found.extend(listing.key_values);
        }
        for key in &own.keys {
            found.extend(self.client.get(key).await?);
        }
        self.stored = found.into_iter().map(|found| (found.key, found.value.to_vec())).collect();
        Ok(())
    }

    /// Goes on with what an earlier publisher gave out.
    fn take_over(&mut self) {
        for (key, value) in &self.stored {
            if let Some((number, labels)) = self.identity(key, value) {
                self.allocation.insert(number, labels);
            } else if let Some((service, address)) = kept_address(key, value) {
                self.kept.service_addresses.insert(service, address);
            } else if let Some((node, range)) = kept_range(key, value) {
                self.kept.pod_ranges.insert(node, range);
            }
        }
    }

    fn identity(&self, key: &str, value: &[u8]) -> Option<(NumericIdentity, Labels)> {
        let origin = &self.facts.origin;
        let Ok(RecordName::Identity(number)) = origin.keyspace.parse(key.as_bytes()) else { return None };
        let decoded = Identity::decode(origin, number, value);
        let identity =
            decoded.inspect_err(|error| warn!(key, error = %error.rejection, "identity not taken over"));
        Some((number, identity.ok()?.labels().clone()))
    }

    async fn reconcile(&mut self, now: SystemTime) -> Result<(), ClientError> {
        let declared = self.objects.borrow_and_update().clone();
        let Filled { objects, kept, mut problems } = fill_in(&declared, &self.kept, &self.facts.ranges);
        let withhold = Withhold::of(&objects);
        if withhold.everything {
            problems.push(
                "a manifest cannot be read: nothing is withdrawn from the mesh until it is right".to_owned(),
            );
        }
        let wanted = wanted_identities(&objects, self.facts);
        problems.extend(self.allocate(&wanted).await?);
        if objects.whole {
            self.allocation.forget_unused(&wanted, now);
        }
        let published = records(&objects, &kept, &self.allocation, self.facts);
        problems.extend(published.problems);
        self.kept = kept;

        let canaries = canaries(self.facts, now);
        let writes = diff(&published.records, &canaries, &self.stored, &withhold);
        self.write(writes).await?;

        let (nodes, services) = summaries(&objects);
        let revision = self.revision;
        self.state.send_if_modified(|state| {
            let new = PublisherState { publishing: true, synced: true, revision, problems, nodes, services };
            let is_new = *state != new;
            for problem in new.problems.iter().filter(|problem| !state.problems.contains(problem)) {
                warn!(problem, "publishing problem");
            }
            *state = new;
            is_new
        });
        Ok(())
    }

    async fn write(&mut self, writes: Vec<Write>) -> Result<(), ClientError> {
        if writes.is_empty() {
            return Ok(());
        }
        let count = writes.len();
        self.revision = self.client.apply(writes.clone()).await?;
        debug!(writes = count, revision = self.revision, "published");
        for write in writes {
            match write {
                Write::Put { key, value } => drop(self.stored.insert(key, value)),
                Write::Delete { key } => drop(self.stored.remove(&key)),
            }
        }
        Ok(())
    }

    /// Gives a number to each set of labels that has none, by creating its record: whoever else creates the same one
    /// is seen. Returns the problem if there are no numbers left.
    async fn allocate(&mut self, wanted: &BTreeSet<Labels>) -> Result<Option<String>, ClientError> {
        loop {
            let missing: Vec<_> = self.allocation.missing(wanted).take(CREATIONS).cloned().collect();
            if missing.is_empty() {
                return Ok(None);
            }
            let mut creations = JoinSet::new();
            let mut exhausted = None;
            for labels in missing {
                let number = match self.allocation.next_free() {
                    Ok(number) => number,
                    Err(error) => {
                        exhausted = Some(error.to_string());
                        break;
                    }
                };
                self.allocation.insert(number, labels.clone());
                let key = self.facts.origin.keyspace.key(&RecordName::Identity(number));
                let value = labels.to_string().into_bytes();
                let client = self.client.clone();
                creations.spawn(async move {
                    let created = client.create(&key, value.clone(), None).await;
                    (number, labels, key, value, created)
                });
            }
            while let Some(ended) = creations.join_next().await {
                let (number, labels, key, value, created) = match ended {
                    Ok(created) => created,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
                match created? {
                    Creation::Created { revision } => {
                        info!(identity = number.0, labels = %labels, "identity allocated");
                        self.revision = self.revision.max(revision);
                        self.stored.insert(key, value);
                    }
                    // Somebody else has the number: it is theirs if it is an identity, and is written over if not.
                    Creation::Exists(found) => {
                        if let Some((number, labels)) = self.identity(&key, &found.value) {
                            self.allocation.insert(number, labels);
                        }
                        self.stored.insert(key, found.value.to_vec());
                    }
                }
            }
            if exhausted.is_some() {
                return Ok(exhausted);
            }
        }
    }
}

fn text_under<'a>(prefix: &landbridge_kvstore_schema::KeyPrefix, key: &'a str) -> Option<&'a str> {
    LandbridgeKey::parse(key.as_bytes()).ok()?;
    key.strip_prefix(prefix.as_str())
}

fn kept_address(key: &str, value: &[u8]) -> Option<(NamespacedName, std::net::Ipv4Addr)> {
    let (namespace, name) = text_under(&service_address_prefix(), key)?.split_once('/')?;
    let address = str::from_utf8(value).ok()?.parse().ok()?;
    Some((NamespacedName::new(namespace, name).ok()?, address))
}

fn kept_range(key: &str, value: &[u8]) -> Option<(ObjectName, landbridge_kvstore_schema::Ipv4Prefix)> {
    let node = text_under(&pod_range_prefix(), key)?;
    let IpPrefix::V4(range) = str::from_utf8(value).ok()?.parse().ok()? else { return None };
    Some((ObjectName::new(node).ok()?, range))
}

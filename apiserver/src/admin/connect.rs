//! Connecting to another cluster, step by step.
//!
//! ```text
//! b reads a:   b RequestCertificate ─► a SignCertificate ─► b AddPeer ─► both ConfirmPeer
//!              key stays on b          reader remote-b      peer a       deadlines go
//! ```
//!
//! - What a step relies on is looked at again in the step, whatever the caller looked at before.
//! - A step that fails has changed nothing that is in use. What was made and not confirmed goes at its deadline.
//! - Steps and the sweep come one after the other.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use landbridge_apiserver_api::v1::{AddPeerRequest, DescribeClusterResponse};
use landbridge_kvstore_schema::{ClusterName, KeyPrefix, OwnRecord, Peer, Reader};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::AdminContext;
use super::error::AdminError;
use crate::peers::addresses::Addresses;
use crate::peers::compatibility::{Description, OwnSide, conflicts};
use crate::peers::mirrored_clusters;
use crate::users::User;

/// How long a peer or reader stays without being confirmed.
const CONFIRM_WITHIN_SECONDS: u32 = 120;
/// The longest that a caller may ask for.
const MAX_CONFIRM_WITHIN_SECONDS: u32 = 3600;
/// How long the removal of a peer waits for its records to be gone.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

impl AdminContext {
    /// Who this cluster is.
    pub(super) fn describe(&self, now: SystemTime) -> Result<DescribeClusterResponse, AdminError> {
        let nodes = self.records.nodes.borrow().clone().ok_or(AdminError::Starting)?;
        let peers = self.records.peers.borrow().clone().ok_or(AdminError::Starting)?;
        let addresses = Addresses::of_own(&self.config.ranges(), nodes.records.values());
        let micros = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        Ok(DescribeClusterResponse {
            name: self.config.cluster().to_string(),
            id: self.config.origin.cluster_id.get().into(),
            max_clusters: self.config.origin.cluster_id.max_clusters().get().into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store_endpoints: self.config.advertise.clone(),
            ca_certificate: self.pki.ca().pem().to_owned(),
            ca_fingerprint: self.pki.ca().fingerprint(),
            // What others take from this cluster; a range that only a node declares is not among it.
            pod_ranges: self.config.ranges().pods.iter().map(ToString::to_string).collect(),
            node_addresses: addresses.nodes.iter().map(ToString::to_string).collect(),
            clock_micros: i64::try_from(micros).unwrap_or(i64::MAX),
            peers: peers.records.keys().map(ToString::to_string).collect(),
            nodes: nodes.records.keys().map(ToString::to_string).collect(),
        })
    }

    /// Makes a key for reading `peer`, and the request for its certificate.
    pub(super) async fn request_certificate(&self, peer: &str) -> Result<String, AdminError> {
        let peer = self.other(peer)?;
        let _one_at_a_time = self.steps.lock().await;
        Ok(self.keys.request(&peer)?)
    }

    /// Lets `peer` read this cluster, until a deadline.
    pub(super) async fn sign_certificate(
        &self,
        peer: &str,
        request: &str,
        now: SystemTime,
    ) -> Result<String, AdminError> {
        let peer = self.other(peer)?;
        let certificate = self.pki.sign_request(&peer, request, now)?;
        let _one_at_a_time = self.steps.lock().await;
        let key = Reader::key(&peer).to_string();
        let known =
            self.own.get(&key).await?.map(|record| Reader::decode(&record.key, &record.value)).transpose()?;
        // A reader that was confirmed comes for a new certificate; it does not go for that.
        let is_confirmed = known.is_some_and(|known| known.unconfirmed_until.is_none());
        let unconfirmed_until = (!is_confirmed).then(|| deadline(now, CONFIRM_WITHIN_SECONDS));
        self.own.put(&key, Reader { unconfirmed_until }.encode(), None).await?;
        info!(cluster = %peer, "signed a certificate for a cluster that wants to read this one");
        Ok(certificate)
    }

    /// Begins to read a peer, until a deadline. With `dry_run`, only says what stands against it.
    pub(super) async fn add_peer(&self, request: AddPeerRequest, now: SystemTime) -> Result<i64, AdminError> {
        let said = request.peer.as_ref().ok_or(AdminError::Missing { field: "peer" })?;
        let within = match request.confirm_within_seconds {
            0 => CONFIRM_WITHIN_SECONDS,
            seconds if seconds > MAX_CONFIRM_WITHIN_SECONDS => {
                return Err(AdminError::Deadline { seconds, max: MAX_CONFIRM_WITHIN_SECONDS });
            }
            seconds => seconds,
        };
        let peer = Description::read(said, now)?;
        let _one_at_a_time = self.steps.lock().await;
        let known = self.stored::<Peer>(&Peer::prefix()).await?;
        let found = conflicts(&self.own_side()?, &known, &peer);
        if !found.is_empty() {
            return Err(AdminError::Conflicts(found));
        }
        if request.dry_run {
            return Ok(0);
        }
        let user = User::Remote(self.config.cluster().clone()).common_name(&peer.name);
        self.keys.install(&peer.name, &user, &request.certificate, &peer.ca, now)?;
        let is_confirmed = known.get(&peer.name).is_some_and(|known| known.unconfirmed_until.is_none());
        let record = Peer {
            id: u16::try_from(peer.id).expect("an id within the mesh was just checked"),
            endpoints: peer.endpoints,
            ca_certificate: peer.ca.pem().to_owned(),
            pod_ranges: peer.addresses.pod_ranges,
            node_addresses: peer.addresses.nodes.into_iter().collect(),
            unconfirmed_until: (!is_confirmed).then(|| deadline(now, within)),
        };
        self.keep_reader(&peer.name, deadline(now, within)).await?;
        let revision = self.own.put(&Peer::key(&peer.name).to_string(), record.encode(), None).await?;
        info!(cluster = %peer.name, id = peer.id, "added a peer");
        Ok(revision)
    }

    /// An unconfirmed reader of the same name is confirmed together with the peer, so it stays for as long.
    async fn keep_reader(&self, name: &ClusterName, until: i64) -> Result<(), AdminError> {
        let key = Reader::key(name).to_string();
        let Some(stored) = self.own.get(&key).await? else { return Ok(()) };
        let reader = Reader::decode(&key, &stored.value)?;
        if reader.unconfirmed_until.is_some_and(|deadline| deadline < until) {
            self.own.put(&key, Reader { unconfirmed_until: Some(until) }.encode(), None).await?;
        }
        Ok(())
    }

    /// Keeps a peer and a reader for good.
    pub(super) async fn confirm_peer(&self, peer: &str) -> Result<(), AdminError> {
        let name = self.other(peer)?;
        let _one_at_a_time = self.steps.lock().await;
        let as_peer = self
            .confirm(&name, &Peer::key(&name).to_string(), |peer: &mut Peer| peer.unconfirmed_until.take())
            .await?;
        let as_reader = self
            .confirm(&name, &Reader::key(&name).to_string(), |reader: &mut Reader| {
                reader.unconfirmed_until.take()
            })
            .await?;
        if as_peer || as_reader { Ok(()) } else { Err(AdminError::NoPeer { name }) }
    }

    /// Forgets a peer and a reader, and waits for a moment until what the peer told us is gone.
    pub(super) async fn remove_peer(&self, peer: &str) -> Result<bool, AdminError> {
        let name = self.other(peer)?;
        let removed = {
            let _one_at_a_time = self.steps.lock().await;
            self.forget(&name).await?
        };
        let deadline = Instant::now() + DRAIN_WITHIN;
        while removed && *self.publishes.borrow() && Instant::now() < deadline {
            if !mirrored_clusters(&self.own).await?.contains(&name) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(removed)
    }

    /// Forgets what was not confirmed in time, and keys that nobody came back for.
    pub(super) async fn sweep(&self, now: SystemTime) -> Result<(), AdminError> {
        let now_seconds = deadline(now, 0);
        let is_over = |deadline: Option<i64>| deadline.is_some_and(|deadline| deadline <= now_seconds);
        let _one_at_a_time = self.steps.lock().await;
        let peers = self.stored::<Peer>(&Peer::prefix()).await?;
        for (name, _) in peers.iter().filter(|(_, peer)| is_over(peer.unconfirmed_until)) {
            info!(cluster = %name, "removed a peer that was not confirmed in time");
            self.forget(name).await?;
        }
        for (name, reader) in self.stored::<Reader>(&Reader::prefix()).await? {
            if is_over(reader.unconfirmed_until) {
                info!(cluster = %name, "removed a reader that was not confirmed in time");
                self.own.delete(&Reader::key(&name).to_string()).await?;
            }
        }
        // A record that cannot be read is no reason to lose the key, which nobody can put back.
        let seen = self.records.peers.borrow().clone().ok_or(AdminError::Starting)?;
        let is_unreadable = |name: &ClusterName| seen.unreadable.contains_key(&Peer::key(name).to_string());
        self.keys.sweep(|name| peers.contains_key(name) || is_unreadable(name), now)?;
        Ok(())
    }

    /// Removes both records, then the key. Steps must be locked.
    async fn forget(&self, name: &ClusterName) -> Result<bool, AdminError> {
        let was_reader = self.own.delete(&Reader::key(name).to_string()).await?;
        let was_peer = self.own.delete(&Peer::key(name).to_string()).await?;
        self.keys.remove(name)?;
        Ok(was_peer || was_reader)
    }

    async fn confirm<T: OwnRecord>(
        &self,
        name: &ClusterName,
        key: &str,
        take_deadline: impl FnOnce(&mut T) -> Option<i64>,
    ) -> Result<bool, AdminError> {
        let Some(stored) = self.own.get(key).await? else { return Ok(false) };
        let mut record = T::decode(key, &stored.value)?;
        if take_deadline(&mut record).is_some()
            && !self.own.replace(key, record.encode(), stored.mod_revision).await?
        {
            return Err(AdminError::Changed { name: name.clone() });
        }
        Ok(true)
    }

    /// The records below `prefix` as they are now; those that cannot be read are left out.
    async fn stored<T: OwnRecord>(&self, prefix: &KeyPrefix) -> Result<BTreeMap<ClusterName, T>, AdminError> {
        let records = self.own.list(prefix.as_str()).await?.key_values;
        let read = |record: &landbridge_kvstore_client::KeyValue| {
            let name = ClusterName::new(record.key.strip_prefix(prefix.as_str())?).ok()?;
            Some((name, T::decode(&record.key, &record.value).ok()?))
        };
        Ok(records.iter().filter_map(read).collect())
    }

    fn own_side(&self) -> Result<OwnSide, AdminError> {
        let nodes = self.records.nodes.borrow().clone().ok_or(AdminError::Starting)?;
        Ok(OwnSide {
            name: self.config.cluster().clone(),
            id: self.config.origin.cluster_id,
            ca_fingerprint: self.pki.ca().fingerprint(),
            addresses: Addresses::of_own(&self.config.ranges(), nodes.records.values()),
        })
    }

    /// The name of another cluster.
    fn other(&self, name: &str) -> Result<ClusterName, AdminError> {
        let name = ClusterName::new(name)?;
        if name == *self.config.cluster() { Err(AdminError::Own { name }) } else { Ok(name) }
    }
}

/// Seconds since 1970, some seconds from now.
fn deadline(now: SystemTime, seconds: u32) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(since).unwrap_or(i64::MAX).saturating_add(seconds.into())
}

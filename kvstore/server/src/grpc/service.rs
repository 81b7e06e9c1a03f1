//! What all services share.

use std::sync::Arc;
use std::time::Duration;

use landbridge_kvstore_store::Store;
use rustix::process::{Resource, getrlimit};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use super::proto::etcdserverpb as pb;
use super::status;
use super::watch::Hub;
use crate::access::{AccessError, AccessRules, Permissions};
use crate::engine::Engine;

/// Limits and intervals of the API. The defaults are etcd's, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The largest request in bytes; etcd's `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// The most operations of a transaction; etcd's `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// How often a quiet watch is told how far it is, if it asked for that; etcd's `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// How long a change can be watched from at least; etcd's `--auto-compaction-retention`. An hour by default, as Cilium
    /// sets it for its cluster mesh; etcd itself keeps everything.
    pub history_retention: Duration,
    /// How long a client may take for its first bytes, and one of HTTP/1 for the head of each request.
    pub head_deadline: Duration,
    /// The most connections at a time; one user may have half of them. Those beyond are closed. By default half as many as
    /// the process may have files open: the log needs some, too.
    pub max_connections: usize,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            progress_interval: Duration::from_mins(10),
            history_retention: Duration::from_hours(1),
            head_deadline: Duration::from_secs(30),
            max_connections: usize::try_from(open_files / 2).unwrap_or(usize::MAX),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The common name of its certificate; `None` without one.
    pub(crate) user: Option<Arc<str>>,
}

impl Peer {
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

/// All services of the API. Clones are of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Service(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    engine: Engine,
    watch_hub: Arc<Hub>,
    settings: ServiceSettings,
    access: watch::Receiver<AccessRules>,
    /// Whether streams that need a leader have to end.
    leader_is_lost: watch::Receiver<bool>,
    stop: CancellationToken,
    advertise: Vec<String>,
    min_lease_seconds: i64,
    cluster_id: u64,
    member_id: u64,
    /// Tasks that outlive the request they are for.
    tracker: TaskTracker,
}

impl Service {
    /// The services of `engine`.
    ///
    /// `stop` ends all streams.
    pub(crate) fn new(
        engine: Engine,
        settings: ServiceSettings,
        access: watch::Receiver<AccessRules>,
        leader_is_lost: watch::Receiver<bool>,
        stop: CancellationToken,
        advertise: Vec<String>,
        min_lease_seconds: i64,
    ) -> Self {
        let status = engine.status();
        let (cluster_id, member_id) = (status.cluster_id, status.member_id);
        let watch_hub = Hub::new(engine.change_feed(), fastrand::u64(..));
        Self(Arc::new(Shared {
            engine,
            watch_hub,
            settings,
            access,
            leader_is_lost,
            stop,
            advertise,
            min_lease_seconds,
            cluster_id,
            member_id,
            tracker: TaskTracker::new(),
        }))
    }

    /// Tasks that outlive the request they are for. They end when `stop` is cancelled.
    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    /// Fails on a learner, which has a copy of the data and nothing to say.
    pub(super) fn refuse_of_learner(&self) -> Result<(), Status> {
        if self.0.engine.is_learner() { Err(status::not_for_learners()) } else { Ok(()) }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Finds the watches that a change is for.
    pub(crate) fn watch_hub(&self) -> &Arc<Hub> {
        &self.0.watch_hub
    }

    /// Has changes found for watches as they are applied, until it is dropped.
    pub(crate) async fn run_watches(self) {
        Arc::clone(&self.0.watch_hub).run(self.0.engine.revisions()).await;
    }

    pub(crate) fn settings(&self) -> ServiceSettings {
        self.0.settings
    }

    /// Where clients reach this member.
    pub(super) fn advertise(&self) -> &[String] {
        &self.0.advertise
    }

    /// The shortest time that a lease lives, in seconds.
    pub(super) fn min_lease_seconds(&self) -> i64 {
        self.0.min_lease_seconds
    }

    /// The rules, as they change.
    pub(super) fn access(&self) -> watch::Receiver<AccessRules> {
        self.0.access.clone()
    }

    /// What the user of a connection may do by the rules of this moment.
    pub(super) fn permissions(&self, peer: &Peer) -> Result<Permissions, AccessError> {
        self.0.access.borrow().of(peer.user.as_deref())
    }

    /// The header of a response, in the term of this moment.
    pub(super) fn header(&self, revision: i64) -> pb::ResponseHeader {
        self.header_of_term(revision, self.0.engine.term())
    }

    /// The header of a response about the state as it is.
    pub(super) fn header_now(&self) -> pb::ResponseHeader {
        self.header(self.0.engine.read(Store::revision))
    }

    pub(super) fn header_of_term(&self, revision: i64, raft_term: u64) -> pb::ResponseHeader {
        let Shared { cluster_id, member_id, .. } = *self.0;
        pb::ResponseHeader { cluster_id, member_id, revision, raft_term }
    }

    /// Whether a request with these headers is one to look at.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
        let version = headers.get("client-api-version");
        if version.is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err()) {
            return Err(status::invalid_client_api_version());
        }
        let needs_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        if needs_leader && !self.0.engine.has_leader() {
            return Err(status::no_leader());
        }
        Ok(())
    }

    /// Completes with the reason when a stream has to end, whatever it is about.
    pub(super) async fn stream_end(&self, needs_leader: bool) -> Status {
        let mut leader_is_lost = self.0.leader_is_lost.clone();
        tokio::select! {
            biased;
            () = self.0.stop.cancelled() => status::stopped(),
            Ok(_) = leader_is_lost.wait_for(|is_lost| *is_lost), if needs_leader => status::no_leader(),
        }
    }
}

/// Whether a request wants to fail where no member leads, rather than wait.
pub(super) fn needs_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}

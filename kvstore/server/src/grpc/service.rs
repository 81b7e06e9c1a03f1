//! What all services share.

use std::sync::Arc;
use std::time::Duration;

use landbridge_kvstore_store::Store;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use super::auth::Passwords;
use super::proto::etcdserverpb as pb;
use super::status;
use super::watch::Hub;
use crate::access::{Access, AccessError, Gate, Permissions, Rights};
use crate::compaction::CompactionMode;
use crate::engine::Engine;

/// Copies of the store that can be sent at a time.
const COPIES: usize = 16;

/// Limits and intervals of the API. The defaults are etcd's, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The largest request in bytes; etcd's `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// The most operations of a transaction; etcd's `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// How often a quiet watch is told how far it is, if it asked for that; etcd's `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// How long a change can be watched from at least; etcd's `--auto-compaction-mode` and `--auto-compaction-retention`. An
    /// hour by default, as Cilium sets it for its cluster mesh; etcd itself keeps everything.
    pub compaction: CompactionMode,
    /// How long a client may take for its first bytes, and one of HTTP/1 for the head of each request.
    pub head_deadline: Duration,
    /// The most connections at a time; one user may have half of them. Those beyond are closed. By default half as many as
    /// the process may have files open: the log needs some, too.
    pub max_connections: usize,
    /// The most streams of one connection; etcd's `--max-concurrent-streams`. A watch is one, so that a low limit stalls a
    /// client with many; none at all, as in etcd, would let one connection take all memory, since each stream may hold a
    /// request in the making.
    pub max_streams: u32,
    /// Bytes of answers that clients have not read, and as many of large requests that have not ended: beyond, reads wait, and
    /// requests are refused. One connection gets an eighth of the first and half of the second.
    pub max_held_bytes: usize,
    /// After this time without a word, a client is asked whether it lives; etcd's `--grpc-keepalive-interval`. `None` never
    /// asks.
    pub ping_interval: Option<Duration>,
    /// How long it may take to answer before it is taken for dead; etcd's `--grpc-keepalive-timeout`.
    pub ping_timeout: Duration,
    /// Whether the time that calls take is measured; etcd's `--metrics=extensive`.
    pub times_calls: bool,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            progress_interval: Duration::from_mins(10),
            compaction: CompactionMode::Periodic(Duration::from_hours(1)),
            head_deadline: Duration::from_secs(30),
            max_connections: usize::try_from(open_files / 2).unwrap_or(usize::MAX),
            max_streams: 1 << 14,
            max_held_bytes: 256 << 20,
            ping_interval: Some(Duration::from_hours(2)),
            ping_timeout: Duration::from_secs(20),
            times_calls: false,
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The common name of its certificate, empty if that has none; `None` without a certificate.
    pub(crate) user: Option<Arc<str>>,
    /// The token that came with its request, if there is one.
    pub(crate) token: Option<Arc<str>>,
}

impl Peer {
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// The peer of a connection that names a user by its certificate.
    pub(crate) fn certified(user: Option<Arc<str>>) -> Self {
        Self { user, token: None }
    }

    /// Takes note of what one request of it says. etcd's names of the token, in etcd's order (`AuthInfoFromCtx`); what came
    /// through a gateway has that one's certificate, which says nothing.
    pub(super) fn take_headers(&mut self, headers: &HeaderMap) {
        let token = headers.get("token").or_else(|| headers.get("authorization"));
        self.token = token.map(|token| {
            let token = String::from_utf8_lossy(token.as_bytes());
            token.strip_prefix("Bearer ").unwrap_or(&token).into()
        });
        if headers.contains_key("grpcgateway-accept") {
            self.user = None;
        }
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
    gate: Gate,
    passwords: Passwords,
    /// Whether streams that need a leader have to end.
    leader_is_lost: watch::Receiver<bool>,
    stop: CancellationToken,
    advertise: Vec<String>,
    min_lease_seconds: i64,
    /// For copies of the store that are being sent: each has a thread.
    copies: Arc<Semaphore>,
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
        access: Access,
        leader_is_lost: watch::Receiver<bool>,
        stop: CancellationToken,
        advertise: Vec<String>,
        min_lease_seconds: i64,
    ) -> Self {
        let status = engine.status();
        let (cluster_id, member_id) = (status.cluster_id, status.member_id);
        let gate = Gate::new(access, engine.clone());
        let watch_hub = Hub::new(engine.change_feed(), fastrand::u64(..));
        Self(Arc::new(Shared {
            engine,
            watch_hub,
            settings,
            gate,
            passwords: Passwords::default(),
            leader_is_lost,
            stop,
            advertise,
            min_lease_seconds,
            copies: Arc::new(Semaphore::new(COPIES)),
            cluster_id,
            member_id,
            tracker: TaskTracker::new(),
        }))
    }

    /// Tasks that outlive the request they are for. They end when `stop` is cancelled.
    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
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

    /// A place for one more copy of the store that is being sent.
    ///
    /// # Errors
    /// If there is none left.
    pub(super) fn place_for_copy(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.0.copies).try_acquire_owned();
        place.map_err(|_| status::too_many_requests())
    }

    /// Who gets in, and how far.
    pub(super) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// Where passwords are worked on.
    pub(super) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// When rights may have changed.
    pub(super) fn rights(&self) -> Rights {
        self.0.gate.rights()
    }

    /// What a peer may do by what counts at this moment, as far as this member knows.
    pub(super) fn permissions(&self, peer: &Peer) -> Result<Arc<Permissions>, AccessError> {
        self.0.gate.permissions(&self.0.gate.identify(peer)?)
    }

    /// What a peer may do, if it passes `check`. Who does not is looked at again when this member has applied what others
    /// have: a role, or the token itself, may have been given elsewhere a moment ago.
    ///
    /// Who passes by what has changed elsewhere is stopped later: by the version of the permissions.
    pub(super) async fn permitted(
        &self,
        peer: &Peer,
        check: impl Fn(&Permissions) -> Result<(), AccessError>,
    ) -> Result<Arc<Permissions>, AccessError> {
        let look = || {
            let permissions = self.permissions(peer)?;
            check(&permissions).map(|()| permissions)
        };
        match look() {
            Err(error) if self.0.engine.read_barrier().await.is_err() => Err(error),
            Err(_) => look(),
            permitted => permitted,
        }
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

//! The way to other members, and theirs to this one.
//!
//! ```text
//! network, forwarding, reads ─► Peers: a channel for each member and lane ─► link ─► other member
//! listen ─► link ─► service ─► openraft, proposals, reads, leases
//! ```
//!
//! Invariants:
//! - What a call may be held up by is on another connection: entries and batches, snapshots, and all that is short and
//!   urgent have a lane each, so that a full one delays no heartbeat.
//! - A link that is silent for an election timeout is given up, and not before.
//! - A call says which cluster it is of and whom it is for. One for another cluster or member is refused.

mod link;
mod listen;
mod service;
mod switch;
mod tls;

pub(super) use listen::{PeerListener, bind, serve};
pub(super) use service::PeerService;
pub use switch::{Direction, Switch};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::codec::proto::peer_client::PeerClient;
use super::identity::Identity;
use crate::platform::Platform;
use crate::tls::TlsFiles;

/// What a call is about.
const CLUSTER: &str = "landbridge-cluster";
const TO: &str = "landbridge-to";
const FROM: &str = "landbridge-from";
/// What a member says to one that is no longer one.
const REMOVED: &str = "the member has been permanently removed from the cluster";
/// Bytes that may be under way on a stream, and on a connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A kind of call with a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Short and urgent: heartbeats, votes, read indices, leases.
    Control,
    /// Entries and batches.
    Log,
    /// Snapshots.
    Snapshot,
}

/// How a call of another member went wrong.
#[derive(Clone, Debug)]
pub(super) enum CallError {
    /// Nothing was sent.
    Unreachable(String),
    /// It may have been carried out.
    Unknown(String),
    /// This member is no longer one.
    Removed,
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) | Self::Unknown(reason) => formatter.write_str(reason),
            Self::Removed => formatter.write_str(REMOVED),
        }
    }
}

/// The other members as this one reaches them. Clones are of the same.
#[derive(Clone)]
pub(super) struct Peers(Arc<Inner>);

struct Inner {
    identity: Identity,
    tls: Option<TlsFiles>,
    platform: Platform,
    election_timeout: Duration,
    urls: RwLock<BTreeMap<u64, Vec<String>>>,
    channels: Mutex<BTreeMap<(u64, Lane), Channel>>,
    switch: Switch,
    since: Instant,
    /// When the leader was last heard of, in milliseconds since the start; 0 if never.
    heard: AtomicU64,
    /// This member is none any more: it has applied that, or another one said so.
    removed: CancellationToken,
    /// Ends all connections.
    cut: CancellationToken,
}

impl fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Peers").field("identity", &self.0.identity).finish_non_exhaustive()
    }
}

impl Peers {
    pub(super) fn new(
        identity: Identity,
        tls: Option<TlsFiles>,
        platform: Platform,
        election_timeout: Duration,
        cut: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            identity,
            tls,
            platform,
            election_timeout,
            urls: RwLock::default(),
            channels: Mutex::default(),
            switch: Switch::default(),
            since: Instant::now(),
            heard: AtomicU64::new(0),
            removed: CancellationToken::new(),
            cut,
        }))
    }

    pub(super) fn platform(&self) -> &Platform {
        &self.0.platform
    }

    pub(super) fn election_timeout(&self) -> Duration {
        self.0.election_timeout
    }

    /// The leader was heard of.
    pub(super) fn hear(&self) {
        let millis = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard.store(millis.max(1), Ordering::Relaxed);
    }

    /// Whether the leader was heard of within an election timeout.
    pub(super) fn hears_leader(&self) -> bool {
        let heard = self.0.heard.load(Ordering::Relaxed);
        let silent = self.0.since.elapsed().saturating_sub(Duration::from_millis(heard));
        heard > 0 && silent <= self.0.election_timeout
    }

    pub(super) fn switch(&self) -> Switch {
        self.0.switch.clone()
    }

    /// Whether this member was removed, by its own account or another's.
    pub(super) fn is_removed(&self) -> bool {
        self.0.removed.is_cancelled()
    }

    /// Notes that this member was removed.
    pub(super) fn remove(&self) {
        self.0.removed.cancel();
    }

    /// Completes when another member said that this one was removed.
    pub(super) async fn removed(&self) {
        self.0.removed.cancelled().await;
    }

    /// Notes where a member is reached from now on.
    pub(super) fn locate(&self, member: u64, urls: &[String]) {
        let mut known = self.0.urls.write().unwrap_or_else(PoisonError::into_inner);
        if known.get(&member).is_none_or(|known| known != urls) {
            known.insert(member, urls.to_vec());
        }
    }

    /// The way to a member on a lane.
    pub(super) fn client(&self, member: u64, lane: Lane) -> PeerClient<Channel> {
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry((member, lane)).or_insert_with(|| self.channel(member));
        // The other end is one of us.
        PeerClient::new(channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    fn channel(&self, member: u64) -> Channel {
        let patience = self.0.election_timeout;
        let inner = Arc::clone(&self.0);
        let connector = tower::service_fn(move |_| {
            let inner = Arc::clone(&inner);
            async move {
                let urls = inner.urls.read().unwrap_or_else(PoisonError::into_inner).get(&member).cloned();
                if inner.switch.is_cut(member, Direction::To) || inner.switch.is_cut(member, Direction::From)
                {
                    return Err(std::io::ErrorKind::HostUnreachable.into());
                }
                let link =
                    link::dial(&urls.unwrap_or_default(), inner.tls.as_ref(), &inner.platform, &inner.cut)
                        .await?;
                Ok::<_, std::io::Error>(TokioIo::new(link.switched(inner.switch.clone(), member)))
            }
        });
        Endpoint::from_static("http://peer")
            .connect_timeout(patience)
            .http2_keep_alive_interval(patience / 2)
            // What is under way on a link is lost with it: a member that is busy is not given up for that.
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector_lazy(connector)
    }

    /// A call to a member.
    pub(super) fn request<T>(&self, to: u64, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let Identity { cluster_id, member_id } = self.0.identity;
        for (key, number) in [(CLUSTER, cluster_id), (TO, to), (FROM, member_id)] {
            let value = AsciiMetadataValue::try_from(format!("{number:016x}"));
            request.metadata_mut().insert(key, value.expect("digits are ASCII"));
        }
        request
    }

    /// What an answer that is none means.
    pub(super) fn failed(&self, status: &Status) -> CallError {
        if status.message() == REMOVED {
            self.remove();
            return CallError::Removed;
        }
        let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
        while let Some(error) = source {
            if error.is::<tonic::ConnectError>() {
                return CallError::Unreachable(status.message().to_owned());
            }
            source = error.source();
        }
        CallError::Unknown(format!("{}: {}", status.code(), status.message()))
    }
}

/// A number of a call's metadata.
fn number(metadata: &MetadataMap, key: &str) -> Option<u64> {
    u64::from_str_radix(metadata.get(key)?.to_str().ok()?, 16).ok()
}

/// Asks whoever is behind one of `urls` for the members of its cluster.
pub(super) async fn ask_members(
    urls: &[String],
    tls: Option<&TlsFiles>,
    platform: &Platform,
    patience: Duration,
) -> Result<super::codec::proto::MembersResponse, String> {
    let cut = CancellationToken::new();
    let (urls, tls, platform) = (urls.to_vec(), tls.cloned(), platform.clone());
    let connector = {
        let cut = cut.clone();
        tower::service_fn(move |_| {
            let (urls, tls, platform, cut) = (urls.clone(), tls.clone(), platform.clone(), cut.clone());
            async move {
                Ok::<_, std::io::Error>(TokioIo::new(link::dial(&urls, tls.as_ref(), &platform, &cut).await?))
            }
        })
    };
    let _cut = cut.drop_guard();
    let channel = Endpoint::from_static("http://peer")
        .connect_timeout(patience)
        .timeout(patience)
        .connect_with_connector_lazy(connector);
    let members = PeerClient::new(channel).members(super::codec::proto::MembersRequest {}).await;
    members.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

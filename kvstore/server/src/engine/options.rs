//! Settings of an engine, and what it tells about itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::listen::ListenUrl;
use crate::tls::TlsFiles;
use crate::wal::WalOptions;

/// As in etcd.
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;

/// Settings of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where its files are: `wal/` and `snap/`, readable to this user only.
    pub data_dir: PathBuf,
    /// The member's name.
    pub name: String,
    /// The cluster that an empty data folder becomes part of; not looked at when there is data.
    pub cluster: ClusterOptions,
    /// The way to the other members, and theirs to this one.
    pub peers: PeerOptions,
    /// Where clients reach this member, told to the others. None: this is not told.
    pub client_urls: Vec<String>,
    /// Settings of the log.
    pub wal: WalOptions,
    /// How many requests there are between two snapshots at least, but where these are very large. There are more where the
    /// store is much larger than what they change.
    pub snapshot_entries: u64,
    /// How many bytes the store may have, keys, values and history: beyond, it takes no more, and raises an alarm, until
    /// someone has made room and cleared it; etcd's `--quota-backend-bytes`. 0: 2 GiB. Less: no limit.
    pub quota_bytes: i64,
    /// How long a member waits for its leader before it stands for election.
    pub election_timeout: Duration,
    /// How often a leader lets the others know that it lives.
    pub heartbeat: Duration,
    /// How long a simple token lives without being used.
    pub token_ttl: Duration,
}

impl EngineOptions {
    /// The settings of a cluster of one member that keeps its files in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            name: "default".to_owned(),
            cluster: ClusterOptions::default(),
            peers: PeerOptions::default(),
            client_urls: Vec::new(),
            wal: WalOptions::default(),
            snapshot_entries: 10_000,
            quota_bytes: 0,
            election_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(100),
            token_ttl: Duration::from_mins(5),
        }
    }
}

impl EngineOptions {
    /// How many bytes the store may have, if there is a limit.
    pub(super) fn quota(&self) -> Option<u64> {
        match self.quota_bytes {
            0 => Some(DEFAULT_QUOTA_BYTES),
            bytes => u64::try_from(bytes).ok(),
        }
    }
}

/// The cluster that a new member is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// All members, this one included, and the same on each of them; etcd's `--initial-cluster`. None: this one alone, in
    /// a cluster whose ID is another each time that one is made.
    pub initial: Vec<InitialMember>,
    /// Whether they make the cluster now, or it is there.
    pub state: ClusterState,
    /// Keeps clusters with equal members apart; etcd's `--initial-cluster-token`.
    pub token: String,
    /// Goes on alone with the data that there is, whatever members it names: what is left after the majority of a cluster
    /// was lost for good; etcd's `--force-new-cluster`.
    pub force_new: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            initial: Vec::new(),
            state: ClusterState::New,
            token: "landbridge".to_owned(),
            force_new: false,
        }
    }
}

/// A member of a cluster that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
}

/// Whether a member with an empty data folder makes its cluster with others, or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// All members of `initial` are made together.
    New,
    /// The cluster runs, and was told of this member before it starts.
    Existing,
}

/// The way to the other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Where this member listens for the others. None: nowhere, which will do for a cluster of one.
    pub listen: Vec<ListenUrl>,
    /// The URLs by which the others reach this one.
    pub advertise: Vec<String>,
    /// The certificate that this member shows to the others, and the CA of theirs; needed for `https`.
    pub tls: Option<TlsFiles>,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self { listen: Vec::new(), advertise: vec!["http://localhost:2380".to_owned()], tls: None }
    }
}

/// How a member is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// Names the cluster; never 0, and the same as long as its data lives.
    pub cluster_id: u64,
    /// Names the member; never 0, and the same for good.
    pub member_id: u64,
    /// The member's name.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// The member that leads, as far as this one knows.
    pub leader: Option<u64>,
    /// Whether that is this one.
    pub is_leader: bool,
    /// The current term.
    pub term: u64,
    /// The last log entry known to be committed.
    pub committed_index: u64,
    /// The last log entry applied to the store.
    pub applied_index: u64,
    /// Bytes of all files on disk: log and snapshots.
    pub disk_bytes: u64,
    /// Bytes of disk that hold something: `disk_bytes` without the log's room for more.
    pub used_bytes: u64,
}

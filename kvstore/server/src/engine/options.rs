//! Settings of an engine, and what it tells about itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::wal::WalOptions;

/// Settings of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where its files are: `wal/` and `snap/`, readable to this user only.
    pub data_dir: PathBuf,
    /// The member's name.
    pub name: String,
    /// Where other members reach it.
    pub peer_url: String,
    /// Keeps clusters with equal members apart. Two that are made one after the other are told apart without it.
    pub cluster_token: String,
    /// Settings of the log.
    pub wal: WalOptions,
    /// How many log entries there are between two snapshots.
    pub snapshot_entries: u64,
    /// How long a member waits for its leader before it stands for election.
    pub election_timeout: Duration,
    /// How often a leader lets the others know that it lives.
    pub heartbeat: Duration,
}

impl EngineOptions {
    /// The settings of a cluster of one member that keeps its files in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            name: "default".to_owned(),
            peer_url: "https://localhost:2380".to_owned(),
            cluster_token: "landbridge".to_owned(),
            wal: WalOptions::default(),
            snapshot_entries: 10_000,
            election_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(100),
        }
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
    pub peer_url: String,
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

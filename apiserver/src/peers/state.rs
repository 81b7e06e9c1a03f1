//! How the reading of a peer is going, as it is shown.

use std::time::{Duration, Instant};

use super::mirror::Counts;

/// How the reading of a peer is going. Its reader is the only one that writes it.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// How far the reader has come.
    pub phase: Phase,
    /// Why the peer's store does not answer, and since when; `None` while it does.
    pub outage: Option<Outage>,
    /// The revision of the peer's store, when it was last asked.
    pub revision: i64,
    /// Up to which revision of the peer's store its records are in the own one.
    pub mirrored_revision: i64,
    /// When the peer's store last answered.
    pub heard: Option<Instant>,
    /// How long the last request took.
    pub round_trip: Option<Duration>,
    /// What is taken and what is refused.
    pub counts: Counts,
}

/// How far a reader has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The peer is not known to be what it was when it was connected.
    Connecting {
        /// What is waited for.
        waiting_for: String,
    },
    /// Its records are read, but not yet all there.
    Syncing {
        /// What is waited for.
        waiting_for: String,
    },
    /// All that it published is there.
    Synced,
}

/// A time in which a peer's store does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it began.
    pub since: Instant,
    /// Why, as the last request said.
    pub message: String,
}

impl PeerState {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self {
            phase: Phase::Connecting { waiting_for: "the first answer of its store".to_owned() },
            outage: None,
            revision: 0,
            mirrored_revision: 0,
            heard: None,
            round_trip: None,
            counts: Counts::default(),
        }
    }

    /// The state in a word, and why it is not `synced`.
    pub fn summary(&self, now: Instant) -> (&'static str, String) {
        if let Some(outage) = &self.outage {
            let since = now.saturating_duration_since(outage.since).as_secs();
            return ("unreachable", format!("its store has not answered for {since} s: {}", outage.message));
        }
        match &self.phase {
            Phase::Connecting { waiting_for } => ("connecting", format!("waiting for {waiting_for}")),
            Phase::Syncing { waiting_for } => ("syncing", format!("waiting for {waiting_for}")),
            Phase::Synced => ("synced", String::new()),
        }
    }
}

impl Default for PeerState {
    fn default() -> Self {
        Self::new()
    }
}

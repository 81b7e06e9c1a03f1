//! Decides what a feed tells, and what it does next.
//!
//! ```text
//!            ┌── history forgotten, or of another store ──┐
//!            ▼                                            │
//! start ► Listing ── last page: deletes, Synced ──► Watching ── events, progress ──► told
//!            ▲  └─ the member only lags ──────────────►   │
//!            └── the store seems to have gone back ───────┘
//! ```
//!
//! Invariants:
//! - `told` is what the receiver holds: folding all that was told gives its keys.
//! - Every change up to `reached` was told, so a watch may start right behind it.
//! - Revisions are only compared within one history: that of a cluster that has not gone back.

use std::collections::BTreeMap;

use super::FeedEvent;
use crate::error::ClientError;
use crate::key_value::{Header, KeyValue};
use crate::page::{Page, Position};

/// One change, out of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(KeyValue),
    Delete { key: String, revision: i64 },
}

impl Change {
    fn revision(&self) -> i64 {
        match self {
            Self::Put(key_value) => key_value.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The page that was asked for.
    Page(Page),
    /// The watch that was asked for runs.
    Watching(Header),
    /// All changes of some revisions, in order.
    Changes(Header, Vec<Change>),
    /// The store's revision. Everything up to it was delivered if it came for this watch. Stores before etcd 3.5.13
    /// answer a request for it too early (etcd issue 15220), so that kind only informs.
    Progress { header: Header, requested: bool },
    /// The store no longer has the revision that was asked for.
    Forgotten,
    /// The request or the watch failed.
    Lost(ClientError),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read the first page, or the one at a position.
    List(Option<Position>),
    /// Watch from this revision on.
    Watch { from: i64 },
}

#[derive(Clone, Debug)]
enum Phase {
    Listing {
        /// What is still to be read; nothing before the first page.
        rest: Option<Position>,
        /// Whether the first page only has to show that the store has not gone back.
        in_doubt: bool,
    },
    Watching,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    /// 0 if the value is of another history.
    mod_revision: i64,
    /// The last list that showed it.
    list: u64,
}

/// What a feed knows.
#[derive(Debug)]
pub(crate) struct FeedState {
    phase: Phase,
    told: BTreeMap<String, Told>,
    cluster_id: Option<u64>,
    reached: i64,
    /// The highest revision that the store was seen at.
    highest: i64,
    lists: u64,
    lost: bool,
    failures: u32,
}

impl FeedState {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Listing { rest: None, in_doubt: false },
            told: BTreeMap::new(),
            cluster_id: None,
            reached: 0,
            highest: 0,
            lists: 0,
            lost: false,
            failures: 0,
        }
    }

    /// What to do next.
    pub(crate) fn step(&self) -> Step {
        match &self.phase {
            Phase::Listing { rest, .. } => Step::List(rest.clone()),
            Phase::Watching => Step::Watch { from: self.reached + 1 },
        }
    }

    /// Failures since the feed last brought something: what to pause for.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes in what happened, and returns what to tell.
    pub(crate) fn handle(&mut self, input: Input) -> Vec<FeedEvent> {
        match input {
            Input::Page(page) => self.page(page),
            Input::Watching(header) => {
                self.check_history(header);
                Vec::new()
            }
            Input::Changes(header, changes) => {
                if !self.is_known(header) {
                    self.failures = self.failures.saturating_add(1);
                    self.relist(true);
                    return Vec::new();
                }
                self.failures = 0;
                self.lost = false;
                self.changes(changes)
            }
            Input::Progress { header, requested } => self.progress(header, requested),
            Input::Forgotten => {
                self.failures = self.failures.saturating_add(1);
                self.relist(false);
                Vec::new()
            }
            Input::Lost(error) => {
                self.failures = self.failures.saturating_add(1);
                let first = !std::mem::replace(&mut self.lost, true);
                first.then_some(FeedEvent::Lost { error }).into_iter().collect()
            }
        }
    }

    fn page(&mut self, page: Page) -> Vec<FeedEvent> {
        let Phase::Listing { rest, in_doubt } = &self.phase else { return Vec::new() };
        let revision = match rest {
            Some(_) if !self.is_known(page.header) => {
                // The rest of another cluster's list: its first pages are missing.
                self.relist(false);
                return Vec::new();
            }
            Some(position) => position.revision,
            None => {
                let same = self.is_known(page.header) && page.header.revision >= self.highest;
                if *in_doubt && same {
                    self.phase = Phase::Watching;
                    return Vec::new();
                }
                if !same {
                    self.told.values_mut().for_each(|told| told.mod_revision = 0);
                    (self.cluster_id, self.highest) = (Some(page.header.cluster_id), 0);
                }
                self.lists += 1;
                self.highest = self.highest.max(page.header.revision);
                page.header.revision
            }
        };
        let mut events = self.upserts(page.key_values);
        if let Some(start) = page.next {
            self.phase = Phase::Listing { rest: Some(Position { start, revision }), in_doubt: false };
            return events;
        }
        let list = self.lists;
        let vanished = self.told.extract_if(.., |_, told| told.list != list);
        events.extend(vanished.map(|(key, _)| FeedEvent::Delete { key, revision }));
        events.push(FeedEvent::Synced { revision });
        self.phase = Phase::Watching;
        self.lost = false;
        self.reached = revision;
        events
    }

    /// Tells the ones that were not told in this form.
    fn upserts(&mut self, key_values: Vec<KeyValue>) -> Vec<FeedEvent> {
        let list = self.lists;
        let news = key_values.into_iter().filter(|kv| {
            let now = Told { mod_revision: kv.mod_revision, list };
            let before = self.told.insert(kv.key.clone(), now);
            before.is_none_or(|before| before.mod_revision != now.mod_revision)
        });
        news.map(FeedEvent::Upsert).collect()
    }

    fn changes(&mut self, changes: Vec<Change>) -> Vec<FeedEvent> {
        let mut events = Vec::new();
        let reached = self.reached;
        // A resumed watch of a store that repeats itself must not bring back what is gone.
        for change in changes.into_iter().filter(|change| change.revision() > reached) {
            self.reached = self.reached.max(change.revision());
            match change {
                Change::Put(key_value) => {
                    let told = Told { mod_revision: key_value.mod_revision, list: self.lists };
                    self.told.insert(key_value.key.clone(), told);
                    events.push(FeedEvent::Upsert(key_value));
                }
                Change::Delete { key, revision } => {
                    let told = self.told.remove(&key);
                    events.extend(told.map(|_| FeedEvent::Delete { key, revision }));
                }
            }
        }
        // Not the header's revision: a batch out of history may be followed by more of it (etcd `watchable_store.go`).
        self.highest = self.highest.max(self.reached);
        events
    }

    fn progress(&mut self, header: Header, requested: bool) -> Vec<FeedEvent> {
        if !self.check_history(header) {
            return Vec::new();
        }
        self.failures = 0;
        self.lost = false;
        self.highest = header.revision;
        if !requested {
            self.reached = self.reached.max(header.revision);
        }
        vec![FeedEvent::Progress { revision: header.revision }]
    }

    /// Whether a watch is one of the history that was told. If not, lists again.
    fn check_history(&mut self, header: Header) -> bool {
        if !matches!(self.phase, Phase::Watching) {
            return false;
        }
        let known = self.is_known(header);
        let same = known && header.revision >= self.highest;
        if !same {
            self.failures = self.failures.saturating_add(1);
            self.relist(known);
        }
        same
    }

    fn relist(&mut self, in_doubt: bool) {
        self.phase = Phase::Listing { rest: None, in_doubt };
    }

    fn is_known(&self, header: Header) -> bool {
        self.cluster_id == Some(header.cluster_id)
    }
}

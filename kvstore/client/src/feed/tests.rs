//! A feed against a store in memory, whatever happens to the two: what it tells is what the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tonic::Status;

use super::FeedEvent;
use super::state::{Change, FeedState, Input, Step};
use crate::call::Call;
use crate::error::ClientError;
use crate::key_value::{Header, KeyValue};
use crate::page::{Page, Position};

/// Small pages, so that short listings have many.
const PAGE_KEYS: usize = 2;

type Keys = BTreeMap<String, KeyValue>;

/// A store with all of its history, and one that lags behind it.
#[derive(Debug)]
struct Store {
    cluster_id: u64,
    /// By revision, from 0 on.
    snapshots: Vec<Keys>,
    changes: Vec<Vec<Change>>,
    compacted: usize,
}

impl Store {
    fn new(cluster_id: u64) -> Self {
        Self { cluster_id, snapshots: vec![Keys::new(); 2], changes: vec![vec![]; 2], compacted: 0 }
    }

    fn revision(&self) -> usize {
        self.snapshots.len() - 1
    }

    fn header(&self, revision: usize) -> Header {
        Header { cluster_id: self.cluster_id, revision: int(revision) }
    }

    /// One revision that puts or deletes each of `keys`.
    fn write(&mut self, keys: &BTreeMap<u8, bool>) {
        let revision = int(self.snapshots.len());
        let mut now = self.snapshots[self.revision()].clone();
        let mut changes = Vec::new();
        for (key, put) in keys {
            let key = format!("key/{key}");
            if *put {
                let created = now.get(&key).map_or(revision, |kv| kv.create_revision);
                // Two clusters never agree on a value.
                let value = format!("{} of {}", revision, self.cluster_id).into();
                let (create_revision, mod_revision) = (created, revision);
                let kv =
                    KeyValue { key: key.clone(), value, create_revision, mod_revision, version: 1, lease: 0 };
                now.insert(key, kv.clone());
                changes.push(Change::Put(kv));
            } else if now.remove(&key).is_some() {
                changes.push(Change::Delete { key, revision });
            }
        }
        if !changes.is_empty() {
            self.snapshots.push(now);
            self.changes.push(changes);
        }
    }

    fn page(&self, position: Option<Position>) -> Input {
        let header = self.header(self.revision());
        let (start, revision) = match position {
            None => (Vec::new(), self.revision()),
            Some(Position { start, revision }) => (start, usize::try_from(revision).unwrap()),
        };
        if revision < self.compacted || revision > self.revision() {
            return Input::Forgotten;
        }
        let mut rest = self.snapshots[revision].values().filter(|kv| kv.key.as_bytes() >= start.as_slice());
        let key_values: Vec<_> = rest.by_ref().take(PAGE_KEYS).cloned().collect();
        let more = rest.next().is_some();
        let next = more.then(|| [key_values[PAGE_KEYS - 1].key.as_bytes(), &[0]].concat());
        Input::Page(Page { header, key_values, skipped: Vec::new(), next })
    }
}

fn int(revision: usize) -> i64 {
    i64::try_from(revision).unwrap()
}

#[derive(Clone, Debug)]
enum Action {
    Write(BTreeMap<u8, bool>),
    /// The feed takes some steps; a watch delivers so many revisions at once.
    Feed {
        steps: u8,
        batch: u8,
    },
    /// The connection breaks.
    Lose,
    Compact,
    /// The member's watches only know the revisions up to so many ago, until its next loss.
    Lag(u8),
    /// The endpoint leads to an empty store with another id.
    OtherCluster,
    /// The store comes back empty under its old id, and the feed sees it before it has grown.
    Wiped,
    Progress {
        requested: bool,
    },
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => prop::collection::btree_map(0..8_u8, any::<bool>(), 1..4).prop_map(Action::Write),
        8 => (1..6_u8, 1..4_u8).prop_map(|(steps, batch)| Action::Feed { steps, batch }),
        2 => Just(Action::Lose),
        1 => Just(Action::Compact),
        1 => (0..4_u8).prop_map(Action::Lag),
        1 => Just(Action::OtherCluster),
        1 => Just(Action::Wiped),
        2 => any::<bool>().prop_map(|requested| Action::Progress { requested }),
    ]
}

/// The feed, its receiver, and the store they look at.
struct World {
    store: Store,
    /// What a watch delivers up to.
    visible: Option<usize>,
    feed: FeedState,
    /// The next revision that the running watch delivers.
    watch: Option<usize>,
    view: Keys,
    /// What was told of the store that the feed looks at.
    told: BTreeSet<(String, i64)>,
    lost: bool,
    lists: usize,
}

impl World {
    fn new() -> Self {
        Self {
            store: Store::new(1),
            visible: None,
            feed: FeedState::new(),
            watch: None,
            view: Keys::new(),
            told: BTreeSet::new(),
            lost: false,
            lists: 0,
        }
    }

    fn visible(&self) -> usize {
        self.visible.unwrap_or_else(|| self.store.revision()).min(self.store.revision())
    }

    fn take(&mut self, input: Input) {
        let expected_at = match &input {
            Input::Progress { header, .. } => Some(header.revision),
            _ => None,
        };
        if matches!(input, Input::Lost(_) | Input::Forgotten) {
            self.watch = None;
        }
        for event in self.feed.handle(input) {
            match event {
                FeedEvent::Upsert(kv) => {
                    assert!(self.told.insert((kv.key.clone(), kv.mod_revision)), "told twice: {kv:?}");
                    self.view.insert(kv.key.clone(), kv);
                }
                FeedEvent::Delete { key, .. } => {
                    assert!(self.view.remove(&key).is_some(), "deleted what was not told of: {key}");
                }
                FeedEvent::Synced { revision } => {
                    self.lists += 1;
                    self.lost = false;
                    assert_eq!(self.view, self.store.snapshots[usize::try_from(revision).unwrap()]);
                }
                FeedEvent::Progress { revision } => {
                    self.lost = false;
                    assert_eq!(Some(revision), expected_at);
                    assert_eq!(self.view, self.store.snapshots[usize::try_from(revision).unwrap()]);
                }
                FeedEvent::Lost { .. } => assert!(!std::mem::replace(&mut self.lost, true), "lost twice"),
            }
        }
        if matches!(self.feed.step(), Step::List(_)) {
            self.watch = None;
        }
    }

    /// Takes one step, as the task of a feed would. Returns whether there was something to do.
    fn step(&mut self, batch: usize) -> bool {
        match (self.feed.step(), self.watch) {
            (Step::List(position), _) => self.take(self.store.page(position)),
            (Step::Watch { from }, None) => {
                let from = usize::try_from(from).unwrap();
                self.watch = Some(from);
                self.take(Input::Watching(self.store.header(self.visible())));
                if self.watch.is_some() && from <= self.store.compacted {
                    self.take(Input::Forgotten);
                }
            }
            (Step::Watch { .. }, Some(from)) => {
                let end = (from + batch).min(self.visible() + 1);
                if from >= end {
                    return false;
                }
                let changes: Vec<_> = self.store.changes[from..end].concat();
                self.watch = Some(end);
                self.lost = false;
                self.take(Input::Changes(self.store.header(self.visible()), changes));
            }
        }
        true
    }

    fn catch_up(&mut self) {
        for _ in 0..1000 {
            if !self.step(1) {
                return;
            }
        }
        panic!("the feed does not come to rest");
    }

    fn lose(&mut self) {
        let call = Call { operation: "watch", key: "key/".into(), endpoint: "http://store".into() };
        self.take(Input::Lost(ClientError::Disconnected {
            call,
            source: Arc::new(Status::unavailable("gone")),
        }));
    }

    fn replace(&mut self, store: Store) {
        self.store = store;
        self.visible = None;
        self.told.clear();
        self.lose();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Write(keys) => self.store.write(&keys),
            Action::Feed { steps, batch } => {
                for _ in 0..steps {
                    self.step(batch.into());
                }
            }
            Action::Lose => {
                self.visible = None;
                self.lose();
            }
            Action::Compact => {
                self.store.compacted = self.store.revision();
                // A watch that lags is cut off.
                if self.watch.is_some_and(|from| from <= self.store.compacted) {
                    self.take(Input::Forgotten);
                }
            }
            Action::Lag(revisions) => {
                self.visible = Some(self.store.revision().saturating_sub(revisions.into()).max(1));
                self.lose();
            }
            Action::OtherCluster => self.replace(Store::new(self.store.cluster_id + 1)),
            Action::Wiped => {
                let before = self.store.revision();
                self.catch_up_now();
                self.replace(Store::new(self.store.cluster_id));
                // An etcd of the same name that has as many revisions cannot be told from the old one.
                if before > 1 {
                    self.catch_up();
                }
            }
            Action::Progress { requested } => {
                // A store answers for what it has delivered.
                if self.watch.is_some_and(|next| next > self.visible()) {
                    let header = self.store.header(self.visible());
                    self.take(Input::Progress { header, requested });
                }
            }
        }
    }

    /// With a member that does not lag.
    fn catch_up_now(&mut self) {
        if self.visible.take().is_some() {
            self.lose();
        }
        self.catch_up();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// At every list, at every progress and at the end, what was told is the store, each value was told once, and an
    /// outage is told of once.
    #[test]
    fn what_a_feed_tells_is_what_the_store_holds(actions in prop::collection::vec(any_action(), 0..60)) {
        let mut world = World::new();
        for action in actions {
            world.act(action);
        }
        world.catch_up_now();
        prop_assert_eq!(&world.view, &world.store.snapshots[world.store.revision()]);
    }
}

fn put(key: u8) -> Action {
    Action::Write(BTreeMap::from([(key, true)]))
}

fn delete(key: u8) -> Action {
    Action::Write(BTreeMap::from([(key, false)]))
}

fn synced(actions: impl IntoIterator<Item = Action>) -> World {
    let mut world = World::new();
    actions.into_iter().for_each(|action| world.act(action));
    world.catch_up();
    world
}

#[test]
fn an_outage_alone_lists_nothing_again() {
    let mut world = synced((0..7).map(put));
    assert_eq!(world.lists, 1);
    for action in [Action::Lose, put(9), Action::Lose, delete(3)] {
        world.act(action);
    }
    world.catch_up();
    assert_eq!(world.lists, 1);
    assert_eq!(world.view.len(), 7);
}

#[test]
fn a_compaction_during_an_outage_lists_again_and_deletes_what_vanished() {
    let mut world = synced((0..3).map(put));
    for action in [Action::Lose, delete(1), put(2), Action::Compact, put(0)] {
        world.act(action);
    }
    world.catch_up();
    assert_eq!(world.lists, 2);
    assert_eq!(world.view.keys().collect::<Vec<_>>(), ["key/0", "key/2"]);
}

#[test]
fn a_member_that_lags_is_waited_for_without_a_list() {
    let mut world = synced((0..5).map(put));
    world.act(Action::Lag(2));
    for _ in 0..10 {
        world.step(1);
    }
    assert!(world.feed.failures() > 2, "it has to pause between its tries");
    world.visible = None;
    world.act(put(7));
    world.catch_up();
    assert_eq!((world.lists, world.view.len()), (1, 6));
}

#[test]
fn progress_that_was_requested_does_not_move_the_point_to_resume_from() {
    let mut world = synced([put(1)]);
    let Step::Watch { from } = world.feed.step() else { panic!("it watches") };
    let header = Header { cluster_id: 1, revision: 100 };
    world.feed.handle(Input::Progress { header, requested: true });
    assert_eq!(world.feed.step(), Step::Watch { from });
    world.feed.handle(Input::Progress { header, requested: false });
    assert_eq!(world.feed.step(), Step::Watch { from: 101 });
}

#[test]
fn a_store_that_repeats_itself_brings_nothing_back() {
    let mut world = synced([put(1), put(2), delete(1)]);
    let (header, changes) = (world.store.header(world.store.revision()), world.store.changes.concat());
    assert_eq!(changes.len(), 3);
    world.take(Input::Changes(header, changes));
    assert_eq!(world.view.keys().collect::<Vec<_>>(), ["key/2"]);
}

#[test]
fn the_deletion_of_a_key_that_was_never_told_of_is_not_told() {
    let mut world = synced([put(1)]);
    let header = world.store.header(9);
    let deletion = Change::Delete { key: "key/7".into(), revision: 9 };
    world.take(Input::Changes(header, vec![deletion]));
    assert_eq!(world.view.len(), 1);
}

#[test]
fn a_list_that_another_cluster_would_finish_starts_again() {
    let mut world = World::new();
    (0..6).map(put).for_each(|action| world.act(action));
    world.step(1);
    world.act(Action::OtherCluster);
    (0..8).rev().map(put).for_each(|action| world.act(action));
    world.catch_up();
    assert_eq!(world.view, world.store.snapshots[world.store.revision()]);
}

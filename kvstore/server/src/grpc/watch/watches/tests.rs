//! Watches against a list of everything that happened, for any order of requests, writes, compactions and steps.

use std::collections::BTreeMap;

use landbridge_kvstore_store::{DeleteRequest, PutRequest};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::engine::ChangeFeed;
use crate::grpc::proto::mvccpb::event::EventType;
use crate::grpc::watch::Hub;
use crate::planted::plant;

#[derive(Clone, Debug)]
enum Action {
    Put(&'static str),
    /// Many revisions at once, more than an inbox holds in tests.
    Burst(&'static str),
    /// All keys from one on, at one revision.
    Delete(&'static str),
    Compact,
    Create {
        key: &'static str,
        end: &'static str,
        start: i64,
        no_put: bool,
    },
    Cancel(i64),
    RequestProgress,
    /// The hub goes on.
    Advance,
    /// The feed has lost its place, as when a snapshot is installed.
    Lose,
    Step,
    ProgressRound,
}

impl View for Store {
    fn read<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        look(self)
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    let key = || prop::sample::select(vec!["a", "b", "c"]);
    let end = prop::sample::select(vec!["", "\0", "b", "c"]);
    prop_oneof![
        6 => key().prop_map(Action::Put),
        1 => key().prop_map(Action::Burst),
        2 => key().prop_map(Action::Delete),
        1 => Just(Action::Compact),
        2 => (key(), end, 0i64..12, any::<bool>())
            .prop_map(|(key, end, start, no_put)| Action::Create { key, end, start, no_put }),
        1 => (0i64..4).prop_map(Action::Cancel),
        1 => Just(Action::RequestProgress),
        6 => Just(Action::Step),
        3 => Just(Action::Advance),
        1 => Just(Action::Lose),
        1 => Just(Action::ProgressRound),
    ]
}

/// A watch as its client sees it.
struct Seen {
    range: KeyRange,
    no_put: bool,
    /// The first revision that it wants to hear of, 0 if it did not say.
    start: i64,
    /// The first revision not yet known.
    next: i64,
}

#[derive(Default)]
struct Model {
    /// Keys, and whether they were put, of each revision; the first is 2.
    happened: Vec<Vec<(Bytes, bool)>>,
    live: std::collections::BTreeSet<Bytes>,
    open: BTreeMap<i64, Seen>,
}

impl Model {
    /// What the watch has to be told between its place and `revision`, included.
    fn owed(&self, seen: &Seen, revision: i64) -> Vec<(Bytes, bool, i64)> {
        let happened = (2..).zip(&self.happened);
        let all = happened.flat_map(|(at, changes)| changes.iter().map(move |(key, put)| (key, *put, at)));
        let owed = all.filter(|(key, put, at)| {
            (seen.next..=revision).contains(at) && seen.range.contains(key) && !(*put && seen.no_put)
        });
        owed.map(|(key, put, at)| (key.clone(), put, at)).collect()
    }

    fn put(&mut self, store: &mut Store, feed: &ChangeFeed, key: &'static str) {
        store.put(&PutRequest { key: key.into(), ..PutRequest::default() }).unwrap();
        feed.record(store);
        self.happened.push(vec![(key.into(), true)]);
        self.live.insert(key.into());
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Changes(mut delivery) => {
                let id = delivery.watch_id;
                while let Some(part) = delivery.next_part(1) {
                    assert!(!part.fragment, "no watch has agreed to fragments");
                    let told: Vec<_> = part
                        .events
                        .iter()
                        .map(|event| {
                            let kv = event.kv.as_ref().unwrap();
                            (
                                Bytes::copy_from_slice(kv.key()),
                                event.r#type() == EventType::Put,
                                kv.mod_revision(),
                            )
                        })
                        .collect();
                    assert_eq!(told, self.owed(&self.open[&id], part.revision), "all of it, in order, once");
                    self.open.get_mut(&id).unwrap().next = part.revision + 1;
                }
            }
            News::Message(revision, response) if response.canceled => {
                let seen = self.open.remove(&response.watch_id).expect("only a watch that lives ends");
                if response.compact_revision > 0 {
                    assert!(seen.next < response.compact_revision);
                    assert_eq!(revision, 0, "as etcd says it");
                }
            }
            News::Message(revision, response) => {
                // Progress: whoever hears it was told everything before.
                let about: Vec<&Seen> = if response.watch_id == NO_WATCH {
                    self.open.values().collect()
                } else {
                    vec![&self.open[&response.watch_id]]
                };
                for seen in about {
                    assert_eq!(self.owed(seen, revision), []);
                    assert!(seen.start <= revision, "a watch of the future hears nothing");
                }
            }
        }
    }
}

/// Carries out the actions, and what is left to do after them.
fn check(actions: Vec<Action>) -> Result<(), TestCaseError> {
    let mut store = Store::new();
    let feed = Arc::new(ChangeFeed::new(store.revision()));
    let hub = Hub::new(Arc::clone(&feed), 7);
    let mut watches = Watches::new(hub.link());
    let mut model = Model::default();
    let quiet = std::iter::repeat_n([Action::Advance, Action::Step], 200).flatten();
    for action in actions.into_iter().chain(quiet) {
        match action {
            Action::Put(key) => {
                model.put(&mut store, &feed, key);
            }
            Action::Burst(key) => {
                for _ in 0..12 {
                    model.put(&mut store, &feed, key);
                }
            }
            Action::Delete(key) => {
                let range = KeyRange::From(key.into());
                store.delete(&DeleteRequest { range, prev_kv: false }).unwrap();
                feed.record(&store);
                let gone = model.live.split_off(key.as_bytes());
                if !gone.is_empty() {
                    model.happened.push(gone.into_iter().map(|key| (key, false)).collect());
                }
            }
            Action::Compact => {
                let _ = store.compact(store.revision());
            }
            Action::Create { key, end, start, no_put } => {
                let request = pb::WatchCreateRequest {
                    key: key.into(),
                    range_end: end.into(),
                    start_revision: start,
                    filters: if no_put { vec![0] } else { Vec::new() },
                    progress_notify: true,
                    ..pb::WatchCreateRequest::default()
                };
                let news = watches.create(&store, request, Ok(Arc::new(Permissions::all())));
                let News::Message(revision, response) = news else { panic!("{news:?}") };
                prop_assert!(response.created && revision == store.revision());
                let range = KeyRange::new(key.into(), end.into());
                prop_assert_eq!(response.canceled, range.is_empty());
                if !response.canceled {
                    let next = if start == 0 { revision + 1 } else { start };
                    let before = model.open.insert(response.watch_id, Seen { range, no_put, start, next });
                    prop_assert!(before.is_none());
                }
            }
            Action::Cancel(id) => {
                let news = watches.cancel(&store, id);
                prop_assert_eq!(news.is_some(), model.open.contains_key(&id));
                if let Some(news) = news {
                    model.hear(news);
                }
            }
            Action::Advance => {
                hub.advance();
                watches.take();
            }
            Action::Lose => feed.replace(&store),
            Action::RequestProgress => watches.request_progress(&store),
            Action::Step => {
                if watches.is_due()
                    && let Some(news) = watches.step(&store)
                {
                    model.hear(news);
                }
            }
            Action::ProgressRound => {
                for news in watches.progress_round(&store) {
                    model.hear(news);
                }
            }
        }
    }
    prop_assert!(!watches.is_due());
    for seen in model.open.values() {
        prop_assert_eq!(model.owed(seen, store.revision()), []);
    }
    if !model.open.is_empty() && model.open.values().all(|seen| seen.start <= store.revision()) {
        prop_assert_eq!(watches.progress_wanted, None, "a question is answered once that can be");
    }
    Ok(())
}

proptest! {
    /// Each watch is told everything it asked for, once and in order, or that it was compacted; nothing after its end; and
    /// no one is told of progress that is not made. When all is quiet, all is told.
    #[test]
    fn every_watch_is_told_everything_once_and_no_promise_is_early(
        actions in prop::collection::vec(any_action(), 0..60),
    ) {
        check(actions)?;
    }
}

#[test]
fn planted_bugs_are_caught() {
    for bug in [PlantedBug::EventDropped, PlantedBug::EventRepeated, PlantedBug::RevisionSplit] {
        plant(Some(bug));
        let config = Config { max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&prop::collection::vec(any_action(), 0..60), check);
        plant(None);
        assert!(outcome.is_err(), "{bug:?}");
    }
}

//! Watches against a list of everything that happened, for any order of requests, writes, compactions and steps.

use std::collections::BTreeMap;

use landbridge_kvstore_store::{DeleteRequest, PutRequest};
use proptest::prelude::*;

use super::*;
use crate::grpc::proto::mvccpb::event::EventType;

#[derive(Clone, Debug)]
enum Action {
    Put(&'static str),
    Delete(&'static str),
    Compact,
    Create { key: &'static str, end: &'static str, start: i64, no_put: bool },
    Cancel(i64),
    RequestProgress,
    Step,
    ProgressRound,
}

fn any_action() -> impl Strategy<Value = Action> {
    let key = || prop::sample::select(vec!["a", "b", "c"]);
    let end = prop::sample::select(vec!["", "\0", "b", "c"]);
    prop_oneof![
        4 => key().prop_map(Action::Put),
        2 => key().prop_map(Action::Delete),
        1 => Just(Action::Compact),
        2 => (key(), end, 0i64..12, any::<bool>())
            .prop_map(|(key, end, start, no_put)| Action::Create { key, end, start, no_put }),
        1 => (0i64..4).prop_map(Action::Cancel),
        1 => Just(Action::RequestProgress),
        6 => Just(Action::Step),
        1 => Just(Action::ProgressRound),
    ]
}

/// A watch as its client sees it.
struct Seen {
    range: KeyRange,
    no_put: bool,
    /// The first revision not yet known.
    next: i64,
}

#[derive(Default)]
struct Model {
    /// Key, and whether it was a put, of each revision; the first is 2.
    happened: Vec<(Bytes, bool)>,
    open: BTreeMap<i64, Seen>,
}

impl Model {
    /// What the watch has to be told between its place and `revision`, included.
    fn owed(&self, seen: &Seen, revision: i64) -> Vec<(Bytes, bool, i64)> {
        let happened = (2..).zip(&self.happened).filter(|(at, (key, put))| {
            (seen.next..=revision).contains(at) && seen.range.contains(key) && !(*put && seen.no_put)
        });
        happened.map(|(at, (key, put))| (key.clone(), *put, at)).collect()
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Changes(mut delivery) => {
                let id = delivery.watch_id;
                while let Some(part) = delivery.next_part(1) {
                    assert!(!part.fragment, "a revision changes one key here");
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
                    assert!(seen.next < response.compact_revision && response.compact_revision <= revision);
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
                    assert!(seen.next <= revision + 1, "a watch of the future hears nothing");
                }
            }
        }
    }
}

proptest! {
    /// Each watch is told everything it asked for, once and in order, or that it was compacted; nothing after its end; and
    /// no one is told of progress that is not made. When all is quiet, all is told.
    #[test]
    fn every_watch_is_told_everything_once_and_no_promise_is_early(
        actions in prop::collection::vec(any_action(), 0..60),
    ) {
        let mut store = Store::new();
        let mut watches = Watches::default();
        let mut model = Model::default();
        let quiet = std::iter::repeat_n(Action::Step, 200);
        for action in actions.into_iter().chain(quiet) {
            match action {
                Action::Put(key) => {
                    store.put(&PutRequest { key: key.into(), ..PutRequest::default() }).unwrap();
                    model.happened.push((key.into(), true));
                    watches.wake();
                }
                Action::Delete(key) => {
                    let range = KeyRange::Single(key.into());
                    if store.delete(&DeleteRequest { range, prev_kv: false }).unwrap().deleted == 1 {
                        model.happened.push((key.into(), false));
                        watches.wake();
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
                    let news = watches.create(&store, request, Ok(Permissions::All));
                    let News::Message(revision, response) = news else { panic!("{news:?}") };
                    prop_assert!(response.created && revision == store.revision());
                    let range = KeyRange::new(key.into(), end.into());
                    prop_assert_eq!(response.canceled, range.is_empty());
                    if !response.canceled {
                        let next = if start == 0 { revision + 1 } else { start };
                        let before = model.open.insert(response.watch_id, Seen { range, no_put, next });
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
                Action::RequestProgress => watches.request_progress(&store),
                Action::Step => {
                    if watches.is_due()
                        && let Some(news) = watches.step(&store)
                    {
                        model.hear(news);
                    }
                }
                Action::ProgressRound => {
                    for news in watches.progress_round() {
model.hear(news);
}
                }
            }
        }
        prop_assert!(!watches.is_due());
        for seen in model.open.values() {
            prop_assert_eq!(model.owed(seen, store.revision()), []);
        }
        if !model.open.is_empty() && model.open.values().all(|seen| seen.next <= store.revision() + 1) {
            prop_assert_eq!(watches.progress_wanted, None, "a question is answered once that can be");
        }
    }
}

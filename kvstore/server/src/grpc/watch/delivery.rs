//! Changes for one watch, cut into messages.

use std::iter::Peekable;
use std::vec::IntoIter;

use landbridge_kvstore_store::{Event, KeyValue, WatchBatch};

use super::super::convert;
use super::super::proto::mvccpb;
use crate::planted::{PlantedBug, planted};

/// About what an event takes besides keys and values: numbers, tags and lengths.
const EVENT_BYTES: usize = 64;

/// Changes of whole revisions on their way to one watch.
///
/// A message ends where a revision does, so that whoever reads it sees all of a revision or nothing; only a watch that
/// agreed to fragments gets one revision in several.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) watch_id: i64,
    fragment: bool,
    /// Everything up to here was given to the watch when all is delivered.
    revision: i64,
    events: Peekable<IntoIter<(Event, Option<KeyValue>)>>,
}

/// What goes into one message.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) events: Vec<mvccpb::Event>,
    /// What the watch may resume after, once it has all parts of this revision.
    pub(super) revision: i64,
    /// Whether the rest of the last revision is in the next part.
    pub(super) fragment: bool,
}

impl Delivery {
    pub(super) fn new(watch_id: i64, fragment: bool, batch: WatchBatch) -> Self {
        Self { watch_id, fragment, revision: batch.revision, events: batch.events.into_iter().peekable() }
    }

    /// The next message, of about `limit` bytes where that can be.
    pub(super) fn next_part(&mut self, limit: usize) -> Option<Part> {
        let mut events = Vec::new();
        let mut last_revision = 0;
        let mut bytes = 0;
        while let Some((event, previous)) = self.events.peek() {
            let same_revision = event.revision() == last_revision;
            let size = size(event, previous.as_ref());
            if !events.is_empty() && bytes + size > limit && (self.fragment || !same_revision) {
                break;
            }
            if planted(PlantedBug::RevisionSplit) && same_revision {
                return Some(Part { events, revision: last_revision, fragment: false });
            }
            bytes += size;
            last_revision = event.revision();
            events.push(convert::event(event, previous.as_ref()));
            self.events.next();
        }
        if events.is_empty() {
            return None;
        }
        let (revision, fragment) = match self.events.peek() {
            None => (self.revision, false),
            Some((next, _)) => (last_revision, next.revision() == last_revision),
        };
        Some(Part { events, revision, fragment })
    }
}

fn size(event: &Event, previous: Option<&KeyValue>) -> usize {
    let previous = previous.map_or(0, |kv| kv.encoded().len());
    EVENT_BYTES + event.key_value().encoded().len() + previous
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::Fields;
    use proptest::prelude::*;

    use super::*;

    fn batch(revisions: &[Vec<usize>]) -> WatchBatch {
        let mut events = Vec::new();
        for (revision, values) in (2..).zip(revisions) {
            for (number, len) in values.iter().enumerate() {
                let kv = KeyValue::new(&Fields {
                    key: format!("{number}").as_bytes(),
                    value: &vec![0; *len],
                    create_revision: revision,
                    mod_revision: revision,
                    version: 1,
                    lease: None,
                });
                events.push((Event::of(kv), None));
            }
        }
        WatchBatch { events, revision: 100 }
    }

    fn revision_of(event: &mvccpb::Event) -> i64 {
        event.kv.as_ref().unwrap().mod_revision()
    }

    proptest! {
        /// Whatever the limit: nothing is lost or moved, nobody is told to resume before something not yet delivered, a
        /// revision stays in one piece unless fragments are wanted, and with them no part is larger than has to be.
        #[test]
        fn parts_put_together_are_the_batch(
            revisions in prop::collection::vec(prop::collection::vec(0usize..400, 1..4), 1..6),
            limit in 1usize..1000,
            fragment in any::<bool>(),
        ) {
            let batch = batch(&revisions);
            let expected: Vec<mvccpb::Event> = batch.events.iter().map(|(event, _)| convert::event(event, None)).collect();
            let mut delivery = Delivery::new(7, fragment, batch);
            let parts: Vec<Part> = std::iter::from_fn(|| delivery.next_part(limit)).collect();

            prop_assert_eq!(parts.iter().flat_map(|part| part.events.clone()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(parts.last().map(|part| (part.revision, part.fragment)), Some((100, false)));
            for pair in parts.windows(2) {
                let (last, next) = (revision_of(pair[0].events.last().unwrap()), revision_of(&pair[1].events[0]));
                prop_assert_eq!(pair[0].revision, last);
                prop_assert_eq!(pair[0].fragment, last == next);
                prop_assert!(fragment || last < next);
            }
            if fragment {
                for part in parts.iter().filter(|part| part.events.len() > 1) {
                    let bytes: usize = part.events.iter().map(|event| {
                        let kv = event.kv.as_ref().unwrap();
                        EVENT_BYTES + kv.key().len() + kv.value().len()
                    }).sum();
                    prop_assert!(bytes <= limit);
                }
            }
        }
    }
}

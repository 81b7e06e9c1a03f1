//! What clients were told against what watchers saw, and watchers against each other.
//!
//! Every answer tells its revision, so that there is nothing to search for: revisions are the order, and it has to explain
//! each answer, and to go with time.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_kvstore_store::{Event, KeyValue};

use super::load::{Asked, Book, Kept, Record, Seen, TTL, Told};

/// The events of each revision, in the order of their keys.
pub(super) type Log = BTreeMap<i64, Vec<Event>>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn value(event: &Event) -> Option<String> {
    event.put().map(|kv| text(kv.value()))
}

/// One log of what all watchers saw, if each saw it in order, once, and whole.
pub(super) fn log_of<'a>(watchers: impl Iterator<Item = &'a Seen>) -> Result<Log, String> {
    let mut log = Log::new();
    for (number, seen) in watchers.enumerate() {
        let mut newest = 1;
        let mut gaps = seen.gaps.iter();
        for events in seen.events.chunk_by(|(_, one), (_, other)| one.revision() == other.revision()) {
            let revision = events[0].1.revision();
            while revision > newest + 1 {
                match gaps.next() {
                    Some((after, upto)) if *after <= newest => newest = newest.max(*upto),
                    _ => return Err(format!("watcher {number} was told {revision} right after {newest}")),
                }
            }
            if revision != newest + 1 {
                return Err(format!("watcher {number} was told {revision} after {newest}"));
            }
            newest = revision;
            let mut events: Vec<Event> = events.iter().map(|(_, event)| event.clone()).collect();
            events.sort_by(|one, other| one.key().cmp(other.key()));
            let known = log.entry(revision).or_insert_with(|| events.clone());
            if *known != events {
                return Err(format!("watcher {number} was told {events:?}, and another {known:?}"));
            }
        }
    }
    let complete = log.keys().copied().eq(2..2 + i64::try_from(log.len()).unwrap());
    if complete { Ok(log) } else { Err("revisions are missing in what all watchers saw".to_owned()) }
}

/// The last change of each key at each revision that changed it.
struct Keys(BTreeMap<String, BTreeMap<i64, Event>>);

impl Keys {
    fn of(log: &Log) -> Self {
        let mut keys: BTreeMap<String, BTreeMap<i64, Event>> = BTreeMap::new();
        for (revision, event) in
            log.iter().flat_map(|(revision, events)| events.iter().map(move |event| (revision, event)))
        {
            keys.entry(text(event.key())).or_default().insert(*revision, event.clone());
        }
        Self(keys)
    }

    /// What a key holds at a revision.
    fn at(&self, key: &str, revision: i64) -> Option<&KeyValue> {
        self.0.get(key)?.range(..=revision).next_back().and_then(|(_, event)| event.put())
    }
}

/// What is there in the end.
pub(super) fn last(log: &Log) -> BTreeMap<String, KeyValue> {
    let mut keys = BTreeMap::new();
    for event in log.values().flatten() {
        match event.put() {
            Some(kv) => keys.insert(text(event.key()), kv.clone()),
            None => keys.remove(&text(event.key())),
        };
    }
    keys
}

pub(super) fn check(book: &Book, log: &Log) -> Result<(), String> {
    let records = book.records.borrow();
    check_times(&records)?;
    let keys = Keys::of(log);
    for record in records.iter() {
        check_answer(record, &keys)?;
    }
    check_events(&records, log, &keys)?;
    for kept in book.kept.borrow().iter() {
        check_lease(kept, book)?;
    }
    Ok(())
}

/// Revisions go up with time: no answer is from before one that came before it was asked for.
fn check_times(records: &[Record]) -> Result<(), String> {
    for record in records {
        let Some((_, revision, told)) = &record.told else { continue };
        let before = told_before(records, record.asked_at);
        if *revision < before || *told == Told::Changed && *revision == before {
            return Err(format!("revision {before} was told before this was asked for: {record:?}"));
        }
    }
    Ok(())
}

/// The newest revision that anybody was told before a moment.
fn told_before(records: &[Record], moment: u64) -> i64 {
    let told = records.iter().filter_map(|record| record.told.as_ref());
    told.filter(|(at, ..)| *at < moment).map(|(_, revision, _)| *revision).max().unwrap_or(0)
}

fn check_answer(record: &Record, keys: &Keys) -> Result<(), String> {
    let Some((_, revision, told)) = &record.told else { return Ok(()) };
    let held = |key: &str, at: i64| keys.at(key, at).map(|kv| (text(kv.value()), kv.mod_revision()));
    let is_right = match (&record.asked, told) {
        (Asked::Get { key }, Told::Holds(found)) => *found == held(key, *revision),
        (Asked::Put { keys, value }, Told::Changed) => {
            keys.iter().all(|key| held(key, *revision) == Some((value.clone(), *revision)))
        }
        (Asked::Swap { key, last, value }, Told::Changed) => {
            held(key, *revision) == Some((value.clone(), *revision))
                && held(key, *revision - 1).map_or(0, |held| held.1) == *last
        }
        (Asked::Swap { key, last, .. }, Told::Unchanged) => {
            held(key, *revision).map_or(0, |held| held.1) != *last
        }
        (Asked::Delete { key }, Told::Changed) => {
            held(key, *revision).is_none() && held(key, *revision - 1).is_some()
        }
        (Asked::Delete { key }, Told::Unchanged) => held(key, *revision).is_none(),
        _ => false,
    };
    if is_right { Ok(()) } else { Err(format!("this is not what watchers saw: {record:?}")) }
}

/// Each event is of one request, or the end of a lease.
fn check_events(records: &[Record], log: &Log, keys: &Keys) -> Result<(), String> {
    let mut unclaimed: BTreeSet<(i64, String)> =
        log.values().flatten().map(|event| (event.revision(), text(event.key()))).collect();
    let written = |asked: &Asked| match asked {
        Asked::Get { .. } => Vec::new(),
        Asked::Put { keys, .. } => keys.clone(),
        Asked::Swap { key, .. } | Asked::Delete { key } => vec![key.clone()],
    };
    for record in records {
        let Some((_, revision, Told::Changed)) = &record.told else { continue };
        for key in written(&record.asked) {
            if !unclaimed.remove(&(*revision, key)) {
                return Err(format!("another request made the same change: {record:?}"));
            }
        }
    }
    let mut by_value: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for (revision, key) in &unclaimed {
        let event = &keys.0[key][revision];
        if let Some(value) = value(event) {
            by_value.entry(value).or_default().insert(*revision);
        }
    }
    for record in records.iter().filter(|record| record.told.is_none()) {
        let (Asked::Put { value, .. } | Asked::Swap { value, .. }) = &record.asked else { continue };
        let Some(revisions) = by_value.get(value) else { continue };
        let [revision] = revisions.iter().copied().collect::<Vec<_>>()[..] else {
            return Err(format!("this was carried out more than once, at {revisions:?}: {record:?}"));
        };
        if revision <= told_before(records, record.asked_at) {
            return Err(format!("this was carried out at {revision}, before it was asked for: {record:?}"));
        }
        for key in written(&record.asked) {
            if !unclaimed.remove(&(revision, key)) {
                return Err(format!("this was carried out in part: {record:?}"));
            }
        }
    }
    let mut deletes: Vec<&Record> = records
        .iter()
        .filter(|record| record.told.is_none() && matches!(record.asked, Asked::Delete { .. }))
        .collect();
    for (revision, key) in unclaimed {
        let event = &keys.0[&key][&revision];
        if event.put().is_some() {
            return Err(format!("nobody put this: {event:?}"));
        }
        if keys.at(&key, revision - 1).is_some_and(|kv| kv.lease().is_some()) {
            continue;
        }
        let asked = Asked::Delete { key };
        let place = deletes.iter().position(|record| record.asked == asked);
        let place = place.ok_or_else(|| format!("nobody deleted this: {event:?}"))?;
        deletes.remove(place);
    }
    Ok(())
}

/// A lease lives as long as it was told to: nobody sees its end before.
fn check_lease(kept: &Kept, book: &Book) -> Result<(), String> {
    let ends = book.seen.iter().filter_map(|seen| {
        let seen = seen.borrow();
        let gone = |(_, event): &&(_, Event)| event.is_deletion() && text(event.key()) == kept.key;
        seen.events.iter().find(gone).map(|(at, _)| *at)
    });
    for end in ends.chain(kept.denied) {
        if let Some(confirmed) = kept.confirmed.iter().find(|confirmed| end < **confirmed + TTL) {
            let after = end.saturating_duration_since(*confirmed);
            return Err(format!(
                "{} was to live for {TTL:?}, and ended {after:?} after that was asked for",
                kept.key
            ));
        }
    }
    Ok(())
}

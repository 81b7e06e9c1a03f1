//! What watchers saw against each other, against the answers, and against what is there in the end.
//!
//! ```text
//! watchers, each its stream ─► one log of revisions ─► whose is each event? ─► one history for each key (register)
//!                               └─► replayed: reads, and the end
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Held, Op, Record};
use crate::register::{Done, Step};

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) key: String,
    /// Nothing if it was deleted.
    pub(crate) value: Option<String>,
    pub(crate) revision: i64,
    pub(crate) created: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// The events of each revision, from 2 on without a gap.
pub(crate) type Log = BTreeMap<i64, Vec<Event>>;

/// What came to one watcher, message by message, up to the last revision that the others know too.
pub(crate) fn log_of(messages: &[Vec<Event>], upto: i64) -> Result<Log, String> {
    let mut log = Log::new();
    let mut newest = 1;
    for message in messages {
        for revision in message.chunk_by(|left, right| left.revision == right.revision) {
            let number = revision[0].revision;
            if number > upto {
                return Ok(log);
            }
            if number <= newest {
                return Err(format!("revision {number} came after {newest}: {revision:?}"));
            }
            if number != newest + 1 {
                return Err(format!("revision {number} came right after {newest}"));
            }
            newest = number;
            let mut events = revision.to_vec();
            events.sort();
            log.insert(number, events);
        }
    }
    if newest < upto {
        return Err(format!("nothing came after revision {newest}, of {upto}"));
    }
    Ok(log)
}

/// What is there at a revision.
pub(crate) fn replay(log: &Log) -> BTreeMap<String, Event> {
    let mut keys = BTreeMap::new();
    for event in log.values().flatten() {
        match event.value {
            Some(_) => keys.insert(event.key.clone(), event.clone()),
            None => keys.remove(&event.key),
        };
    }
    keys
}

/// Finds to each answer its event and to each event who made it, and makes the history of each key of that.
///
/// # Errors
/// An answer is not what happened, or something happened that nobody asked for.
pub(crate) fn explain(records: &[Record], log: &Log) -> Result<BTreeMap<String, Vec<Done>>, String> {
    check_times(records)?;
    let mut unclaimed: BTreeMap<(i64, String), Event> = log
        .iter()
        .flat_map(|(revision, events)| {
            events.iter().map(|event| ((*revision, event.key.clone()), event.clone()))
        })
        .collect();
    let mut histories: BTreeMap<String, Vec<Done>> = BTreeMap::new();
    for record in records {
        let Some(told) = &record.told else { continue };
        let done = Done {
            step: step(&record.op, told.revision),
            answer: told.answer.clone(),
            place: (told.revision, record.has_written()),
            asked_at: record.asked_at,
            told_at: told.at,
        };
        for key in record.op.keys() {
            if record.has_written() {
                let event = unclaimed.remove(&(told.revision, key.clone()));
                if event.is_none_or(|event| event.value.as_ref() != value(&record.op)) {
                    return Err(format!("this was answered, and watchers saw nothing of it: {record}"));
                }
            }
            histories.entry(key.clone()).or_default().push(done.clone());
        }
    }
    let mut push = |key: &str, step, revision, asked_at| {
        let done = Done { step, answer: Answer::Done, place: (revision, true), asked_at, told_at: u64::MAX };
        histories.entry(key.to_owned()).or_default().push(done);
    };
    // What no answer came to was carried out if it was seen.
    let mut open_deletes: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.told.is_none()) {
        if let Op::Delete { key } = &record.op {
            open_deletes.entry(key).or_default().push(record);
            continue;
        }
        let value = value(&record.op);
        let is_own =
            |(_, event): &(_, &Event)| record.op.keys().contains(&event.key) && event.value.as_ref() == value;
        let seen: Vec<(i64, String)> =
            unclaimed.iter().filter(is_own).map(|(place, _)| place.clone()).collect();
        let revisions: BTreeSet<i64> = seen.iter().map(|(revision, _)| *revision).collect();
        if !seen.is_empty() && (revisions.len(), seen.len()) != (1, record.op.keys().len()) {
            return Err(format!(
                "this was carried out in part, or more than once, at {revisions:?}: {record}"
            ));
        }
        for place in seen {
            push(&place.1, step(&record.op, place.0), place.0, record.asked_at);
            unclaimed.remove(&place);
        }
    }
    for deletes in open_deletes.values_mut() {
        deletes.sort_by_key(|record| std::cmp::Reverse(record.asked_at));
    }
    // Deletions look all the same: the first to be seen is of who asked first.
    for ((revision, key), event) in unclaimed {
        if event.value.is_some() {
            return Err(format!("nobody put this: {event:?}"));
        }
        let before =
            log.range(..revision).rev().find_map(|(_, events)| events.iter().find(|event| event.key == key));
        let is_leased = before.is_some_and(|event| event.value.is_some() && event.lease != 0);
        let asked_at = match open_deletes.get_mut(key.as_str()).and_then(Vec::pop) {
            _ if is_leased => 0,
            Some(record) => record.asked_at,
            None => return Err(format!("nobody deleted this: {event:?}")),
        };
        push(&key, Step::Delete { revision }, revision, asked_at);
    }
    Ok(histories)
}

fn step(op: &Op, revision: i64) -> Step {
    match op.clone() {
        Op::Get { .. } => Step::Get,
        Op::Put { value, .. } => Step::Put { value, revision },
        Op::Swap { expected, value, .. } => Step::Swap { expected, value, revision },
        Op::Delete { .. } => Step::Delete { revision },
    }
}

fn value(op: &Op) -> Option<&String> {
    match op {
        Op::Put { value, .. } | Op::Swap { value, .. } => Some(value),
        Op::Get { .. } | Op::Delete { .. } => None,
    }
}

/// Revisions go up with time, over all keys: no answer is from before one that came before it was asked for.
fn check_times(records: &[Record]) -> Result<(), String> {
    let told = |record: &'_ Record| record.told.as_ref().map(|told| (told.at, told.revision));
    let mut ends: Vec<(u64, i64)> = records.iter().filter_map(told).collect();
    ends.sort_unstable();
    let mut begun: Vec<&Record> = records.iter().filter(|record| record.told.is_some()).collect();
    begun.sort_by_key(|record| record.asked_at);
    let (mut ends, mut newest) = (ends.into_iter().peekable(), 0);
    for record in begun {
        while let Some((_, revision)) = ends.next_if(|(at, _)| *at < record.asked_at) {
            newest = newest.max(revision);
        }
        let revision = record.told.as_ref().map_or(0, |told| told.revision);
        if revision < newest || record.has_written() && revision == newest {
            return Err(format!("revision {newest} was told before this was asked for: {record}"));
        }
    }
    Ok(())
}

/// Each answer that says what a key held says what it held at the answer's revision.
pub(crate) fn check_reads(records: &[Record], log: &Log) -> Result<(), String> {
    let mut changes: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in log.values().flatten() {
        changes.entry(&event.key).or_default().push(event);
    }
    for record in records {
        let (Some(told), [key]) = (&record.told, record.op.keys()) else { continue };
        let Answer::Holds(held) = &told.answer else { continue };
        let changes = changes.get(key.as_str()).map_or(&[][..], Vec::as_slice);
        let last = changes.iter().rev().find(|event| event.revision <= told.revision);
        let expected = last.and_then(|event| {
            event.value.as_ref().map(|value| Held { value: value.clone(), revision: event.revision })
        });
        if *held != expected {
            return Err(format!("the key held {expected:?} at that revision: {record}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Told;

    fn event(key: &str, value: Option<&str>, revision: i64) -> Event {
        let value = value.map(str::to_owned);
        Event { key: key.to_owned(), value, revision, created: revision, version: 1, lease: 0 }
    }

    fn put(value: &str, asked_at: u64, told: Option<(u64, i64)>) -> Record {
        let op = Op::Put { keys: vec!["k".to_owned()], value: value.to_owned() };
        let told = told.map(|(at, revision)| Told { at, revision, answer: Answer::Done });
        Record { client: 0, member: 0, op, asked_at, told }
    }

    #[test]
    fn a_watcher_that_misses_repeats_or_splits_is_found() {
        let (two, other, three) = (event("k", Some("a"), 2), event("l", Some("a"), 2), event("k", None, 3));
        let log = |messages: &[&[&Event]]| {
            let messages: Vec<Vec<Event>> = messages
                .iter()
                .map(|message| message.iter().map(|event| (*event).clone()).collect())
                .collect();
            log_of(&messages, 3)
        };
        assert_eq!(log(&[&[&two, &other], &[&three]]).unwrap().len(), 2);
        log(&[&[&three]]).unwrap_err();
        log(&[&[&two, &other]]).unwrap_err();
        log(&[&[&two, &other], &[&two, &other], &[&three]]).unwrap_err();
        log(&[&[&two], &[&other, &three]]).unwrap_err();
    }

    #[test]
    fn what_was_answered_and_is_not_there_is_found() {
        let log = Log::from([(2, vec![event("k", Some("a"), 2)])]);
        explain(&[put("a", 0, Some((1, 2)))], &log).unwrap();
        explain(&[put("a", 0, Some((1, 2))), put("b", 2, None)], &log).unwrap();
        explain(&[put("a", 0, Some((1, 2))), put("b", 2, Some((3, 3)))], &log).unwrap_err();
        explain(&[], &log).unwrap_err();
    }

    #[test]
    fn what_was_carried_out_twice_is_found() {
        let log = Log::from([(2, vec![event("k", Some("a"), 2)]), (3, vec![event("k", Some("a"), 3)])]);
        explain(&[put("a", 0, None)], &log).unwrap_err();
        explain(&[put("a", 0, Some((1, 2)))], &log).unwrap_err();
    }

    #[test]
    fn a_revision_that_goes_back_is_found() {
        check_times(&[put("a", 0, Some((1, 3))), put("b", 2, Some((3, 2)))]).unwrap_err();
        check_times(&[put("a", 0, Some((2, 3))), put("b", 1, Some((3, 2)))]).unwrap();
    }
}

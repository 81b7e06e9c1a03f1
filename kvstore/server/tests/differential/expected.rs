//! What a watch has to be told, made of everything that happened, and how it may be told.
//!
//! ```text
//! journal (a watch of all keys) ─► range, start, filters ─► expected events
//!                                        what came, message by message ─► the same events, whole revisions
//! ```

use std::collections::{BTreeSet, VecDeque};

use landbridge_kvstore_server::grpc::proto::{etcdserverpb as pb, mvccpb};
use mvccpb::event::EventType;
use pb::watch_create_request::FilterType;

use crate::allowed::{Allowed, Differences};
use crate::line::News;

/// One watch, as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub request: pb::WatchCreateRequest,
    /// The first revision that it is told about.
    pub start: i64,
    /// It begins before what is compacted, so that nothing comes but its end.
    pub doomed: bool,
    /// Up to here the journal was compared.
    pub seen: usize,
}

/// The revision of an event.
pub(crate) fn revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, mvccpb::KeyValue::mod_revision)
}

impl Expected {
    /// What it has to be told of `journal`.
    pub(crate) fn events(&self, journal: &[mvccpb::Event], compacted: i64) -> Vec<mvccpb::Event> {
        if self.doomed {
            return Vec::new();
        }
        let events = journal[self.seen..].iter().filter(|event| self.wants(event)).cloned();
        events.map(|event| self.as_told(event, compacted)).collect()
    }

    fn wants(&self, event: &mvccpb::Event) -> bool {
        let filter = match event.r#type() {
            EventType::Put => FilterType::Noput,
            EventType::Delete => FilterType::Nodelete,
        };
        let pb::WatchCreateRequest { key, range_end, filters, .. } = &self.request;
        let named = event.kv.as_ref().map_or(&[][..], mvccpb::KeyValue::key);
        let in_range = match &range_end[..] {
            b"" if !key.is_empty() => named == &key[..],
            b"" => named == b"\0",
            b"\0" => named >= &key[..],
            end => named >= &key[..] && named < end,
        };
        in_range && revision(event) >= self.start && !filters.contains(&filter.into())
    }

    fn as_told(&self, mut event: mvccpb::Event, compacted: i64) -> mvccpb::Event {
        // Before what is compacted it is no longer known how the key was.
        if !self.request.prev_kv || revision(&event) <= compacted {
            event.prev_kv = None;
        }
        event
    }

    /// Compares what came with what has to come. Returns the end of the watch, if it came.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(
        &self,
        expected: &[mvccpb::Event],
        news: VecDeque<News>,
        tally: &mut Tally,
    ) -> Result<Option<pb::WatchResponse>, String> {
        let mut told = 0;
        let mut in_parts = false;
        let mut end = None;
        for news in news {
            if end.is_some() {
                return Err(format!("a watch is told something after its end: {news:?}"));
            }
            let next = |told: usize| expected.get(told).map_or(i64::MAX, revision);
            match news {
                News::Events { revision: header, events, fragment } => {
                    tally.note_message(&events, fragment);
                    for event in &events {
                        if expected.get(told) != Some(event) {
                            return Err(format!("expected {:?}, got {event:?}", expected.get(told)));
                        }
                        told += 1;
                    }
                    if fragment && !self.request.fragment {
                        return Err("a fragment was sent to a watch that did not ask for them".to_owned());
                    }
                    in_parts = fragment;
                    let last = expected[..told].last().map_or(0, revision);
                    if !fragment && last == next(told) {
                        return Err(format!("revision {last} comes in more than one message"));
                    }
                    if header < last || (!fragment && header >= next(told)) {
                        return Err(format!(
                            "the header of a message with events up to {last} says {header}"
                        ));
                    }
                }
                News::Progress { revision, asked_for } => {
                    tally.progress += 1;
                    if in_parts || revision >= next(told) {
                        return Err(format!("progress {revision} is ahead of {}", next(told)));
                    }
                    if !asked_for && !self.request.progress_notify {
                        return Err(format!("progress {revision} was not asked for"));
                    }
                    tally.early_progress += u64::from(revision < self.start - 1);
                }
                News::End(response) => end = Some(response),
            }
        }
        if told < expected.len() {
            return Err(format!("ended before {:?}", expected[told]));
        }
        Ok(end)
    }
}

/// What was seen of watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub events: u64,
    pub batches: u64,
    pub fragments: u64,
    pub progress: u64,
    pub early_progress: u64,
}

impl Tally {
    fn note_message(&mut self, events: &[mvccpb::Event], fragment: bool) {
        self.events += events.len() as u64;
        let revisions: BTreeSet<i64> = events.iter().map(revision).collect();
        self.batches += u64::from(revisions.len() > 1);
        self.fragments += u64::from(fragment);
    }

    pub(crate) fn differences(&self, seen: &mut Differences) {
        *seen.entry(Allowed::Batching).or_default() += self.batches + self.fragments;
        *seen.entry(Allowed::Progress).or_default() += self.progress;
        *seen.entry(Allowed::EarlyProgress).or_default() += self.early_progress;
    }
}

//! What a log says when it is opened.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio_util::sync::CancellationToken;

use super::writer::{Frame, Next};
use super::{Failure, MemoryLog, SharedLog, Writer};
use crate::engine::codec::{DecodeError, Durable, Record, decode_frame, decode_prologue};
use crate::engine::counters::Counters;
use crate::engine::identity::Identity;
use crate::engine::types::Entry;
use crate::wal::{Place, Wal};

/// Why frames that are whole are no log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum ReplayError {
    #[error("the beginning of its oldest segment cannot be read")]
    Prologue(#[source] DecodeError),
    #[error("frame {number} cannot be read")]
    Frame { number: u64, source: DecodeError },
    #[error("entry {index} is missing")]
    Gap { index: u64 },
}

/// A log as it was found.
#[derive(Debug)]
pub(in crate::engine) struct Recovered {
    pub(in crate::engine) identity: Identity,
    pub(in crate::engine) log: MemoryLog,
    durable: Durable,
    frames: VecDeque<Frame>,
}

/// Replays frames as they are found, so that they are never in memory together.
#[derive(Debug, Default)]
pub(in crate::engine) struct Replay {
    /// What the frames say, without the prologue.
    said: Durable,
    entries: BTreeMap<u64, (Entry, Option<Place>)>,
    frames: VecDeque<Frame>,
    /// The first thing that made no sense.
    error: Option<ReplayError>,
}

impl Replay {
    /// Takes the next frame. Where it is matters to whoever is to go on with the log.
    pub(in crate::engine) fn frame(&mut self, number: u64, payload: &[u8], place: Option<&Place>) {
        if self.error.is_some() {
            return;
        }
        let records = match decode_frame(payload) {
            Ok(records) => records,
            Err(source) => {
                self.error = Some(ReplayError::Frame { number, source });
                return;
            }
        };
        let mut last_index = None;
        for record in records {
            match record {
                Record::Vote(vote) => self.said.vote = Some(vote),
                Record::Entry(entry) => {
                    last_index = last_index.max(Some(entry.log_id.index));
                    self.entries.insert(entry.log_id.index, (entry, place.cloned()));
                }
                Record::TruncateAfter(last) => {
                    self.entries.split_off(&last.map_or(0, |last| last.index.saturating_add(1)));
                }
                Record::Purged(purged) => {
                    self.said.purged = Some(purged);
                    self.entries = self.entries.split_off(&purged.index.saturating_add(1));
                }
                Record::Committed(committed) => self.said.committed = Some(committed),
            }
        }
        self.frames.push_back(Frame { number, last_index, bytes: payload.len() as u64 });
    }

    /// The log that all frames make, behind the prologue of the oldest segment.
    pub(in crate::engine) fn finish(self, prologue: &[u8]) -> Result<Recovered, ReplayError> {
        let (identity, before) = decode_prologue(prologue).map_err(ReplayError::Prologue)?;
        let Self { said, entries, frames, error } = self;
        if let Some(error) = error {
            return Err(error);
        }
        let durable = Durable {
            vote: said.vote.or(before.vote),
            purged: said.purged.or(before.purged),
            committed: said.committed.or(before.committed),
        };
        let mut entries = entries;
        let first = durable.purged.map_or(0, |purged| purged.index.saturating_add(1));
        let entries = entries.split_off(&first);
        if let Some((index, _)) = (first..).zip(entries.keys()).find(|(expected, found)| expected != *found) {
            return Err(ReplayError::Gap { index });
        }
        let mut log = MemoryLog::new(durable.purged, entries.into_values());
        (log.vote, log.committed) = (durable.vote, durable.committed);
        Ok(Recovered { identity, log, durable, frames })
    }
}

impl Recovered {
    /// Parts into the log in memory, and what its writer goes on from.
    pub(in crate::engine) fn into_parts(self) -> (MemoryLog, WriterState) {
        let last_index = self.log.last_log_id().map(|last| last.index);
        let Self { identity, log, durable, frames } = self;
        (log, WriterState { identity, durable, frames, last_index })
    }
}

/// What a writer goes on from.
#[derive(Debug)]
pub(in crate::engine) struct WriterState {
    identity: Identity,
    durable: Durable,
    frames: VecDeque<Frame>,
    last_index: Option<u64>,
}

impl WriterState {
    /// The writer of `log`.
    pub(in crate::engine) fn writer(
        self,
        wal: Wal,
        log: SharedLog,
        failure: Failure,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Writer {
        let needed_bytes = self.frames.iter().map(|frame| frame.bytes).sum();
        Writer {
            wal,
            identity: self.identity,
            written: self.durable,
            last_index: self.last_index,
            frames: self.frames,
            next: Next::default(),
            log,
            failure,
            counters,
            stop,
            needed_bytes: Arc::new(AtomicU64::new(needed_bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::{encode_prologue, encode_record};
    use crate::engine::types::{LogId, Payload, Vote};

    const IDENTITY: Identity = Identity { cluster_id: 7, member_id: 8 };

    fn id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    fn entry(term: u64, index: u64) -> Record {
        Record::Entry(Entry { log_id: id(term, index), payload: Payload::Blank })
    }

    fn replayed(durable: &Durable, frames: &[&[Record]]) -> Result<Recovered, ReplayError> {
        let mut replay = Replay::default();
        for (number, records) in (5..).zip(frames) {
            let mut payload = Vec::new();
            for record in *records {
                encode_record(record, &mut payload);
            }
            replay.frame(number, &payload, None);
        }
        replay.finish(&encode_prologue(IDENTITY, durable))
    }

    #[test]
    fn the_end_of_the_log_has_the_last_word() {
        let before = Durable { vote: Some(Vote::new_committed(1, 8)), ..Durable::default() };
        let recovered = replayed(
            &before,
            &[
                &[entry(1, 0), entry(1, 1), entry(1, 2)],
                &[Record::Vote(Vote::new(2, 9)), Record::TruncateAfter(Some(id(1, 0)))],
                &[entry(2, 1), Record::Committed(id(1, 0))],
            ],
        );
        let recovered = recovered.unwrap();
        let log_ids: Vec<LogId> = recovered.log.sizes(..).map(|(log_id, _)| log_id).collect();
        assert_eq!((recovered.identity, log_ids), (IDENTITY, vec![id(1, 0), id(2, 1)]));
        assert_eq!(recovered.log.vote, Some(Vote::new(2, 9)));
        assert_eq!(recovered.log.committed, Some(id(1, 0)));
    }

    #[test]
    fn a_purge_may_come_long_after_the_segments_it_lets_go_of() {
        // Entries 0 to 4 were in segments that are gone; 5 and 6 are in the same frame, one of them purged.
        let recovered = replayed(
            &Durable::default(),
            &[&[entry(1, 5), entry(1, 6)], &[entry(1, 7)], &[Record::Purged(id(1, 5))]],
        );
        let recovered = recovered.unwrap();
        let indices: Vec<u64> = recovered.log.sizes(..).map(|(log_id, _)| log_id.index).collect();
        assert_eq!(indices, [6, 7]);
        let indices: Vec<u64> = recovered.log.sizes(7..=9).map(|(log_id, _)| log_id.index).collect();
        assert_eq!(indices, [7]);
        assert_eq!(recovered.log.last_log_id(), Some(id(1, 7)));
    }

    #[test]
    fn a_log_that_lacks_an_entry_is_refused() {
        for (entries, index) in [([entry(1, 0), entry(1, 2)], 1), ([entry(1, 3), entry(1, 4)], 0)] {
            let refused = replayed(&Durable::default(), &[&entries]).unwrap_err();
            assert_eq!(refused, ReplayError::Gap { index });
        }
    }
}

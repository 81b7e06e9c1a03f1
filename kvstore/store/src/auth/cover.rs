//! Sets of keys, as ranges add up to them.

use bytes::Bytes;

use crate::{KeyRange, LeaseId, Store};

/// A set of keys as intervals that neither touch nor overlap, in their order. Ranges that touch or overlap count as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover(Vec<Interval>);

/// From `start`, included, to `end`, not included; `None` is no end. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    start: Bytes,
    end: Option<Bytes>,
}

impl Cover {
    /// Whether there is no key in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all keys that `range` can hold are in it. Of a range that can hold none, its first key has to be.
    pub fn holds(&self, range: &KeyRange) -> bool {
        let (KeyRange::Single(start) | KeyRange::Between(start, _) | KeyRange::From(start)) = range;
        let Some(interval) = self.around(start) else { return false };
        match (range, &interval.end) {
            (KeyRange::Between(_, wanted), Some(end)) => wanted <= end,
            (KeyRange::From(_), Some(_)) => false,
            (KeyRange::Single(_), _) | (_, None) => true,
        }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.around(key).is_some()
    }

    /// Whether all keys of a lease are in it. Costs a look-up in the lease for each interval that holds some of them, however
    /// many these are.
    pub fn holds_lease(&self, store: &Store, lease: LeaseId) -> bool {
        let mut from: &[u8] = &[];
        while let Some(key) = store.lease_key_from(lease, from) {
            match self.around(key) {
                None => return false,
                Some(Interval { end: None, .. }) => return true,
                Some(Interval { end: Some(end), .. }) => from = end,
            }
        }
        true
    }

    /// Ranges that add up to it.
    pub fn ranges(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.0.iter().map(|Interval { start, end }| match end {
            Some(end) => KeyRange::Between(start.clone(), end.clone()),
            None => KeyRange::From(start.clone()),
        })
    }

    /// The interval that `key` is in.
    fn around(&self, key: &[u8]) -> Option<&Interval> {
        let before = self.0.partition_point(|interval| interval.start <= *key);
        self.0[..before].last().filter(|interval| interval.end.as_ref().is_none_or(|end| *key < **end))
    }
}

impl FromIterator<KeyRange> for Cover {
    fn from_iter<I: IntoIterator<Item = KeyRange>>(ranges: I) -> Self {
        let mut intervals: Vec<Interval> = ranges.into_iter().filter_map(Interval::of).collect();
        intervals.sort();
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for next in intervals {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| next.start <= *end) => {
                    last.end = match (last.end.take(), next.end) {
                        (Some(one), Some(other)) => Some(one.max(other)),
                        _ => None,
                    };
                }
                _ => merged.push(next),
            }
        }
        Self(merged)
    }
}

impl Interval {
    fn of(range: KeyRange) -> Option<Self> {
        if range.is_empty() {
            return None;
        }
        Some(match range {
            KeyRange::Single(start) => {
                // Nothing is between a key and the same key with a zero byte behind it.
                let end = [&start[..], &[0]].concat().into();
                Self { start, end: Some(end) }
            }
            KeyRange::Between(start, end) => Self { start, end: Some(end) },
            KeyRange::From(start) => Self { start, end: None },
        })
    }
}

//! Who may read and write which keys.
//!
//! ```text
//! rules ── of a user ─► Permissions ── covers the whole range? ─► yes or no
//! ```
//!
//! Invariants:
//! - Pure: the rules are an argument, read anew for each request.
//! - A range is allowed only if every key it can hold is, now or later: what the grants leave out, however small, denies
//!   it. Ranges that touch or overlap count as one.
//! - What is not granted is denied, for a user without any grant too.

use bytes::Bytes;
use landbridge_kvstore_store::{KeyRange, Op, PutRequest, TxnRequest};

/// Who may read and write which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessRules {
    /// Everyone may do everything.
    Open,
    /// Users, by the common name of their certificate, have what is granted to them.
    ByUser(Vec<Grant>),
}

/// What one user may do. Several grants of one user add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The user: the exact common name of its certificate.
    pub user: String,
    /// Whether it may do everything.
    pub root: bool,
    /// The keys it may read and watch.
    pub read: Vec<KeyRange>,
    /// The keys it may put and delete.
    pub write: Vec<KeyRange>,
}

/// Why a request is refused. The texts are part of etcd's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Users have rights, and this is no user.
    #[error("etcdserver: user name is empty")]
    Anonymous,
    /// The user has no right to do this.
    #[error("etcdserver: permission denied")]
    Denied,
}

/// What one user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Everything.
    All,
    /// What is granted.
    Granted {
        /// What it may read.
        read: Cover,
        /// What it may write.
        write: Cover,
    },
}

/// A set of keys as intervals that neither touch nor overlap, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover(Vec<Interval>);

/// From `start`, included, to `end`, not included; `None` is no end. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    start: Bytes,
    end: Option<Bytes>,
}

impl AccessRules {
    /// What `user` may do; `None` is a connection without a certificate.
    ///
    /// # Errors
    /// [`AccessError::Anonymous`] if users have rights and this is none, [`AccessError::Denied`] if nothing at all is granted
    /// to the user.
    pub fn of(&self, user: Option<&str>) -> Result<Permissions, AccessError> {
        let Self::ByUser(grants) = self else { return Ok(Permissions::All) };
        let user = user.filter(|user| !user.is_empty()).ok_or(AccessError::Anonymous)?;
        let grants: Vec<&Grant> = grants.iter().filter(|grant| grant.user == user).collect();
        if grants.is_empty() {
            return Err(AccessError::Denied);
        }
        if grants.iter().any(|grant| grant.root) {
            return Ok(Permissions::All);
        }
        Ok(Permissions::Granted {
            read: grants.iter().flat_map(|grant| &grant.read).collect(),
            write: grants.iter().flat_map(|grant| &grant.write).collect(),
        })
    }
}

impl Permissions {
    /// Whether the user may do what concerns the store as a whole.
    ///
    /// # Errors
    /// [`AccessError::Denied`]. So for the others.
    pub fn root(&self) -> Result<(), AccessError> {
        allowed(matches!(self, Self::All))
    }

    /// Whether the user may read and watch all keys of a range.
    ///
    /// # Errors
    /// As above.
    pub fn read(&self, range: &KeyRange) -> Result<(), AccessError> {
        allowed(match self {
            Self::All => true,
            Self::Granted { read, .. } => read.holds(range),
        })
    }

    /// Whether the user may put and delete all keys of a range.
    ///
    /// # Errors
    /// As above.
    pub fn write(&self, range: &KeyRange) -> Result<(), AccessError> {
        allowed(match self {
            Self::All => true,
            Self::Granted { write, .. } => write.holds(range),
        })
    }

    /// Whether the user may have leases. They are for keys that it puts: who may put none could only fill the store with
    /// them, or keep those of others alive.
    ///
    /// # Errors
    /// As above.
    pub fn leases(&self) -> Result<(), AccessError> {
        allowed(match self {
            Self::All => true,
            Self::Granted { write, .. } => !write.0.is_empty(),
        })
    }

    /// Whether the user may put and delete each of `keys`.
    ///
    /// # Errors
    /// As above.
    pub fn write_each<'k>(&self, mut keys: impl Iterator<Item = &'k [u8]>) -> Result<(), AccessError> {
        allowed(match self {
            Self::All => true,
            Self::Granted { write, .. } => keys.all(|key| write.contains(key)),
        })
    }

    /// Whether the user may read each of `keys`.
    ///
    /// # Errors
    /// As above.
    pub fn read_each<'k>(&self, mut keys: impl Iterator<Item = &'k [u8]>) -> Result<(), AccessError> {
        allowed(match self {
            Self::All => true,
            Self::Granted { read, .. } => keys.all(|key| read.contains(key)),
        })
    }

    /// Whether the user may put this. What the lease holds already is looked at elsewhere: it depends on the state.
    ///
    /// # Errors
    /// As above.
    pub fn put(&self, put: &PutRequest) -> Result<(), AccessError> {
        let key = KeyRange::Single(put.key.clone());
        self.write(&key)?;
        if put.prev_kv { self.read(&key) } else { Ok(()) }
    }

    /// Whether the user may delete a range, and be told what was there.
    ///
    /// # Errors
    /// As above.
    pub fn delete(&self, range: &KeyRange, prev_kv: bool) -> Result<(), AccessError> {
        self.write(range)?;
        if prev_kv { self.read(range) } else { Ok(()) }
    }

    /// Whether the user may do all that a transaction can come to do: both branches count, since which of them is taken
    /// tells something about keys, and so do the compares.
    ///
    /// # Errors
    /// As above.
    pub fn txn(&self, txn: &TxnRequest) -> Result<(), AccessError> {
        if matches!(self, Self::All) {
            return Ok(());
        }
        txn.compare.iter().try_for_each(|compare| self.read(&compare.range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(range) => self.read(&range.range),
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => self.delete(&delete.range, delete.prev_kv),
            Op::Txn(inner) => self.txn(inner),
        })
    }
}

fn allowed(allowed: bool) -> Result<(), AccessError> {
    if allowed { Ok(()) } else { Err(AccessError::Denied) }
}

impl Cover {
    /// Whether all keys that `range` can hold are in it. Of a range that can hold none, its first key has to be.
    pub fn holds(&self, range: &KeyRange) -> bool {
        let wanted = Interval::of(range).unwrap_or_else(|| match range {
            KeyRange::Single(key) | KeyRange::Between(key, _) | KeyRange::From(key) => Interval::single(key),
        });
        self.before(&wanted.start).is_some_and(|interval| match (&interval.end, &wanted.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(wanted)) => wanted <= end,
        })
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.before(key).is_some_and(|interval| interval.end.as_ref().is_none_or(|end| key < &**end))
    }

    /// The last interval that begins at `key` or before.
    fn before(&self, key: &[u8]) -> Option<&Interval> {
        self.0[..self.0.partition_point(|interval| *interval.start <= *key)].last()
    }
}

impl<'r> FromIterator<&'r KeyRange> for Cover {
    fn from_iter<I: IntoIterator<Item = &'r KeyRange>>(ranges: I) -> Self {
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
    fn of(range: &KeyRange) -> Option<Self> {
        match range {
            KeyRange::Single(key) => Some(Self::single(key)),
            KeyRange::Between(start, end) if start < end => {
                Some(Self { start: start.clone(), end: Some(end.clone()) })
            }
            KeyRange::Between(..) => None,
            KeyRange::From(start) => Some(Self { start: start.clone(), end: None }),
        }
    }

    fn single(key: &Bytes) -> Self {
        // Nothing is between a key and the same key with a zero byte behind it.
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(key);
        end.push(0);
        Self { start: key.clone(), end: Some(end.into()) }
    }
}

#[cfg(test)]
mod tests;

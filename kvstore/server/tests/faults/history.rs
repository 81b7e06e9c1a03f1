//! What clients asked for and were told, in the order in which they saw it.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a key holds, and since which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) value: String,
    pub(crate) revision: i64,
}

/// An operation as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Get { key: String },
    Put { keys: Vec<String>, value: String },
    Swap { key: String, expected: Option<String>, value: String },
    Delete { key: String },
}

impl Op {
    pub(crate) fn keys(&self) -> &[String] {
        match self {
            Self::Put { keys, .. } => keys,
            Self::Get { key } | Self::Swap { key, .. } | Self::Delete { key } => std::slice::from_ref(key),
        }
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The value was put, or what was there is deleted.
    Done,
    /// There was nothing to delete.
    Nothing,
    /// The key held this: the answer to a get, or why nothing was swapped.
    Holds(Option<Held>),
}

/// An answer, when it came, and the store's revision that it told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) at: u64,
    pub(crate) revision: i64,
    pub(crate) answer: Answer,
}

/// An operation of a client.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) client: usize,
    pub(crate) member: usize,
    pub(crate) op: Op,
    pub(crate) asked_at: u64,
    /// Nothing if it is not known whether it was carried out.
    pub(crate) told: Option<Told>,
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, member, op, asked_at, told } = self;
        write!(
            formatter,
            "client {client} asked member {member} at {asked_at} for {op:?}, and was told {told:?}"
        )
    }
}

impl Record {
    /// Whether it is known to have changed something.
    pub(crate) fn has_written(&self) -> bool {
        !matches!(self.op, Op::Get { .. }) && matches!(&self.told, Some(told) if told.answer == Answer::Done)
    }
}

/// Takes down what happens. Its moments are in the order in which they were.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    moments: AtomicU64,
    records: Mutex<Vec<Record>>,
}

impl Recorder {
    pub(crate) fn now(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn push(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }

    /// How many operations were answered.
    pub(crate) fn answers(&self) -> usize {
        self.records.lock().unwrap().iter().filter(|record| record.told.is_some()).count()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}

//! Clients and watchers of a simulated cluster, and what they take down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, Event, KeyRange, LeaseId, Op, PutRequest,
    RangeRequest, Store, TxnRequest, WatchFilter, WatchStep, Watcher,
};
use tokio::time::{Instant, sleep, timeout};

use super::members::Running;
use super::plan::MEMBERS;
use crate::engine::{Command, Engine, Outcome};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Keys that clients write.
const KEYS: u8 = 3;
/// What leases are granted, and how often they are renewed.
pub(super) const TTL: Duration = Duration::from_secs(4);
const RENEW_EVERY: Duration = Duration::from_millis(700);
/// Revisions that compaction leaves, of those that some watcher has seen.
const KEPT_REVISIONS: i64 = 30;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Get {
        key: String,
    },
    Put {
        keys: Vec<String>,
        value: String,
    },
    /// Puts a value if the key was last changed at a revision, 0 if it is not there.
    Swap {
        key: String,
        last: i64,
        value: String,
    },
    Delete {
        key: String,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Changed,
    /// There was nothing to delete, or the key was changed at another revision.
    Unchanged,
    /// The value, and when it was put.
    Holds(Option<(String, i64)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) client: usize,
    pub(super) member: usize,
    pub(super) asked: Asked,
    pub(super) asked_at: u64,
    /// When an answer came, its revision, and what it said; nothing if it is not known whether it was carried out.
    pub(super) told: Option<(u64, i64, Told)>,
}

/// What was told of a lease, in simulated time.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) key: String,
    /// When what was confirmed was asked for: that it is granted, and that it lives on.
    pub(super) confirmed: Vec<Instant>,
    /// When a member said that it is gone.
    pub(super) denied: Option<Instant>,
}

/// What one watcher saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) events: Vec<(Instant, Event)>,
    /// Revisions that were forgotten before it saw them: after the first, up to the second.
    pub(super) gaps: Vec<(i64, i64)>,
    pub(super) newest: i64,
}

/// Everything that is taken down.
#[derive(Default)]
pub(super) struct Book {
    moments: Cell<u64>,
    pub(super) records: RefCell<Vec<Record>>,
    pub(super) kept: RefCell<Vec<Kept>>,
    pub(super) seen: [RefCell<Seen>; MEMBERS],
    pub(super) compactions: Cell<u64>,
    pub(super) is_over: Cell<bool>,
}

impl Book {
    fn moment(&self) -> u64 {
        self.moments.set(self.moments.get() + 1);
        self.moments.get()
    }

    pub(super) fn answers(&self) -> usize {
        self.records.borrow().iter().filter(|record| record.told.is_some()).count()
    }
}

fn single(key: &str) -> KeyRange {
    KeyRange::Single(Bytes::copy_from_slice(key.as_bytes()))
}

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> PutRequest {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    PutRequest { key, value, lease, ..PutRequest::default() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks a member; nothing if it is not known what became of it.
async fn ask(engine: &Engine, asked: &Asked, lease: Option<LeaseId>) -> Option<(i64, Told)> {
    let command = match asked {
        Asked::Get { key } => {
            engine.read_barrier().await.ok()?;
            let look = |store: &Store| {
                let found = store.range(&RangeRequest::new(single(key))).ok()?;
                let held = found.kvs.first().map(|kv| (text(kv.value()), kv.mod_revision()));
                Some((store.revision(), Told::Holds(held)))
            };
            return engine.read(look);
        }
        Asked::Put { keys, value } => match keys.as_slice() {
            [key] => Command::Put(put(key, value, lease)),
            keys => {
                let success = keys.iter().map(|key| Op::Put(put(key, value, None))).collect();
                Command::Txn(TxnRequest { compare: Vec::new(), success, failure: Vec::new() })
            }
        },
        Asked::Swap { key, last, value } => {
            let compare = Compare {
                range: single(key),
                operator: CompareOperator::Equal,
                target: CompareTarget::ModRevision(*last),
            };
            let success = vec![Op::Put(put(key, value, None))];
            Command::Txn(TxnRequest { compare: vec![compare], success, failure: Vec::new() })
        }
        Asked::Delete { key } => Command::DeleteRange(DeleteRequest { range: single(key), prev_kv: false }),
    };
    let applied = engine.propose(command).await.ok()?;
    let told = match applied.outcome.ok()? {
        Outcome::Txn(txn) if !txn.succeeded => Told::Unchanged,
        Outcome::DeleteRange(deleted) if deleted.deleted == 0 => Told::Unchanged,
        _ => Told::Changed,
    };
    Some((applied.revision, told))
}

fn pick(running: &Running, dice: &mut fastrand::Rng) -> Option<(usize, Engine)> {
    let member = dice.usize(..MEMBERS);
    Some((member, running.lock().unwrap()[member].clone()?))
}

/// One client. Goes on until it is over.
pub(super) async fn client(seed: u64, client: usize, running: Running, book: Rc<Book>) {
    let stream = u64::try_from(client).unwrap() + 1;
    let mut dice = fastrand::Rng::with_seed(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut last = 0;
    for count in 0u64.. {
        sleep(Duration::from_millis(dice.u64(20..250))).await;
        if book.is_over.get() {
            return;
        }
        let key = format!("key/{}", dice.u8(..KEYS));
        let value = format!("{client}.{count}");
        let asked = match dice.u8(..20) {
            0..7 => Asked::Get { key },
            7..12 => Asked::Put { keys: vec![key], value },
            12..14 => Asked::Put { keys: vec!["key/0".to_owned(), "key/1".to_owned()], value },
            14..18 => Asked::Swap { key, last, value },
            _ => Asked::Delete { key },
        };
        let lease = if dice.u8(..4) == 0 { live_lease(&book) } else { None };
        let Some((member, engine)) = pick(&running, &mut dice) else { continue };
        let asked_at = book.moment();
        let answer = timeout(PATIENCE, ask(&engine, &asked, lease)).await.ok().flatten();
        drop(engine);
        let told = answer.map(|(revision, told)| (book.moment(), revision, told));
        last = match &told {
            Some((_, _, Told::Holds(held))) => held.as_ref().map_or(0, |held| held.1),
            Some((_, revision, Told::Changed)) => *revision,
            _ => 0,
        };
        if told.is_some() || !matches!(asked, Asked::Get { .. }) {
            book.records.borrow_mut().push(Record { client, member, asked, asked_at, told });
        }
    }
}

/// The lease that is kept alive at the moment, as far as is known.
fn live_lease(book: &Book) -> Option<LeaseId> {
    let kept = book.kept.borrow();
    let last = kept.last().filter(|kept| kept.denied.is_none())?;
    LeaseId::new(last.key.strip_prefix("lease/")?.parse().ok()?).ok()
}

/// Keeps a lease alive, and makes another when it has ended all the same.
pub(super) async fn keeper(seed: u64, running: Running, book: Rc<Book>) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x006b_6565_7065_7273);
    for number in 1i64.. {
        let id = LeaseId::new(number).unwrap();
        let key = format!("lease/{number}");
        let granted = loop {
            sleep(RENEW_EVERY).await;
            if book.is_over.get() {
                return;
            }
            let Some((_, engine)) = pick(&running, &mut dice) else { continue };
            let asked = Instant::now();
            let ttl_seconds = i64::try_from(TTL.as_secs()).unwrap();
            let grant = timeout(PATIENCE, engine.propose(Command::LeaseGrant { id, ttl_seconds })).await;
            match grant {
                Ok(Ok(applied)) if applied.outcome.is_ok() => break asked,
                // It may live, and nobody knows.
                _ => break asked - TTL,
            }
        };
        let Some((member, engine)) = pick(&running, &mut dice) else { continue };
        let asked = Asked::Put { keys: vec![key.clone()], value: key.clone() };
        let asked_at = book.moment();
        let answer = timeout(PATIENCE, ask(&engine, &asked, Some(id))).await.ok().flatten();
        let told = answer.map(|(revision, told)| (book.moment(), revision, told));
        let is_put = told.is_some();
        book.records.borrow_mut().push(Record { client: usize::MAX, member, asked, asked_at, told });
        if !is_put {
            continue;
        }
        let place = book.kept.borrow().len();
        book.kept.borrow_mut().push(Kept { key, confirmed: vec![granted], denied: None });
        // Some are kept for long, and some only for a moment.
        for _ in 0..dice.u8(1..20) {
            sleep(RENEW_EVERY).await;
            if book.is_over.get() {
                return;
            }
            let Some((_, engine)) = pick(&running, &mut dice) else { continue };
            let asked = Instant::now();
            match timeout(PATIENCE, engine.renew_lease(id)).await {
                Ok(Ok(Some(_))) => book.kept.borrow_mut()[place].confirmed.push(asked),
                Ok(Ok(None)) => {
                    book.kept.borrow_mut()[place].denied = Some(Instant::now());
                    break;
                }
                _ => {}
            }
        }
    }
}

/// Watches everything at one member, from where it was before.
pub(super) async fn watch(member: usize, running: Running, book: Rc<Book>) {
    loop {
        let current = running.lock().unwrap()[member].clone();
        let Some(watched) = current.filter(|engine| !engine.0.stop.is_cancelled()) else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut revisions = watched.revisions();
        let next = book.seen[member].borrow().newest.max(1) + 1;
        let all = KeyRange::From(Bytes::from_static(b"\0"));
        let mut watcher = watched.read(|store| Watcher::new(store, all, next, WatchFilter::default(), false));
        while !watched.0.stop.is_cancelled() {
            revisions.borrow_and_update();
            loop {
                let step = watched.read(|store| watcher.step(store));
                let mut seen = book.seen[member].borrow_mut();
                match step {
                    WatchStep::Events(batch) => {
                        let now = Instant::now();
                        seen.events.extend(batch.events.into_iter().map(|(event, _)| (now, event)));
                        seen.newest = batch.revision;
                    }
                    WatchStep::Compacted(revision) => {
                        let newest = seen.newest;
                        seen.gaps.push((newest, revision - 1));
                        seen.newest = revision - 1;
                        watcher.skip_to(revision);
                    }
                    WatchStep::Behind => {}
                    WatchStep::Waiting | WatchStep::UpToDate(_) => break,
                }
            }
            let _ = timeout(Duration::from_millis(50), revisions.changed()).await;
        }
    }
}

/// Forgets history now and then, as far as some watcher has seen it.
pub(super) async fn compactor(seed: u64, running: Running, book: Rc<Book>) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x636f_6d70_6163_7400);
    loop {
        sleep(Duration::from_millis(dice.u64(1000..6000))).await;
        if book.is_over.get() {
            return;
        }
        let newest = book.seen.iter().map(|seen| seen.borrow().newest).max().unwrap_or(0);
        let Some((_, engine)) = pick(&running, &mut dice) else { continue };
        if newest > KEPT_REVISIONS {
            let compact = engine.propose(Command::Compact { revision: newest - KEPT_REVISIONS });
            if matches!(timeout(PATIENCE, compact).await, Ok(Ok(applied)) if applied.outcome.is_ok()) {
                book.compactions.set(book.compactions.get() + 1);
            }
        }
    }
}

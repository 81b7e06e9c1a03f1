//! What is applied: committed entries, in order, to the one store.
//!
//! ```text
//! committed entries ─► StateMachine ─► State, under a lock ─► revisions, applied index ─► who proposed them
//!                           │             └─► readers            └─► watchers
//!                           └─► a copy of the state ─► snapshot file, in the background
//! ```
//!
//! Invariants:
//! - openraft's worker is the only writer. Entries are applied in batches; readers see none of a batch or all of it.
//! - Whoever is told of a revision can read it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use landbridge_kvstore_store::auth::AuthStore;
use landbridge_kvstore_store::{LeaseClock, LeaseId, Store, StoreError};
use openraft::storage::{ApplyResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::alarms::{AlarmKind, Alarms};
use super::batch::{Request, weight};
use super::change_feed::ChangeFeed;
use super::counters::Counters;
use super::lease_time::LeaseTime;
use super::members::Members;
use super::proposals::Attendants;
use super::snapshot::{self, SnapshotError, SnapshotFile};
use super::tokens::Tokens;
use super::types::{Entry, LogId, Payload, Proposal, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use super::{Applied, Command, Outcome};
use crate::platform::{Clock, Platform};
use crate::wal::disk::{Access, DiskFile};

/// Requests that are applied under one lock; a batch is never parted. Readers wait no longer than these take.
const TURN_LEN: usize = 512;

/// How long a snapshot waits before a full disk is asked again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The applied state of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) auth: Arc<AuthStore>,
    pub(super) members: Members,
    pub(super) alarms: Alarms,
    pub(super) last_applied: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl State {
    /// Applies the next entry, and tells what came of each of its requests, in order, with the store as each left it.
    pub(super) fn apply(&mut self, entry: &Entry, mut tell: impl FnMut(&Store, &Command, Applied)) {
        self.last_applied = Some(entry.log_id);
        match &entry.payload {
            Payload::Blank => {}
            Payload::Membership(membership) => {
                self.members.change(self.membership.membership(), membership);
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            Payload::Normal(Proposal(batch)) => {
                let term = **entry.log_id.committed_leader_id();
                let index = entry.log_id.index;
                for Request { command, auth_revision } in &batch.requests {
                    let outcome = if self.auth.has_outdated(*auth_revision) {
                        Err(StoreError::AuthOldRevision)
                    } else {
                        command.apply(self, index)
                    };
                    tell(&self.store, command, Applied { outcome, revision: self.store.revision(), term });
                }
            }
        }
    }

    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }
}

/// What the parts of an engine share. Locks are taken in the order of the fields.
#[derive(Debug)]
pub(super) struct Shared {
    state: RwLock<State>,
    /// New revisions on their way to watchers.
    pub(super) feed: Arc<ChangeFeed>,
    /// The deadlines of leases, while this member leads.
    clock: Mutex<Option<LeaseClock>>,
    lease_time: LeaseTime,
    /// A lease may have a deadline before all others.
    pub(super) clock_changed: Notify,
    pub(super) revisions: watch::Sender<i64>,
    /// Users and roles as they are applied.
    pub(super) auth: watch::Sender<Arc<AuthStore>>,
    tokens: Mutex<Tokens>,
    token_clock: Arc<dyn Clock>,
    /// The index of the last entry applied. Also sent anew when the clock starts or stops.
    pub(super) applied: watch::Sender<u64>,
    /// There is something to let go of, after a compaction.
    pub(super) compacted: Notify,
    /// Whether a compaction forgot something that is still in memory.
    sweeping: watch::Sender<bool>,
    counters: Arc<Counters>,
    /// Bytes of the store, after the last entry applied.
    size: AtomicU64,
    /// Those who wait for what this member proposed.
    pub(super) attendants: Arc<Attendants>,
    /// The term in which this member leads and has applied what came before; else 0.
    leading_term: AtomicU64,
}

impl Shared {
    /// The state of a member since a start, which `session` tells from all others.
    pub(super) fn new(
        state: State,
        member: u64,
        session: u64,
        token_ttl: Duration,
        clock: &Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            attendants: Arc::new(Attendants::new(member, session)),
            leading_term: AtomicU64::new(0),
            clock: Mutex::new(None),
            lease_time: LeaseTime::new(Arc::clone(clock)),
            clock_changed: Notify::new(),
            feed: Arc::new(ChangeFeed::new(state.store.revision())),
            auth: watch::Sender::new(Arc::clone(&state.auth)),
            tokens: Mutex::new(Tokens::new(token_ttl)),
            token_clock: Arc::clone(clock),
            revisions: watch::Sender::new(state.store.revision()),
            applied: watch::Sender::new(state.last_applied.map_or(0, |last| last.index)),
            compacted: Notify::new(),
            sweeping: watch::Sender::new(true),
            counters,
            size: AtomicU64::new(state.store.size_bytes()),
            state: RwLock::new(state),
        }
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("a store that panicked half way is not to be read")
    }

    fn clock(&self) -> MutexGuard<'_, Option<LeaseClock>> {
        self.clock.lock().expect("nothing that holds it panics")
    }

    /// Applies entries and tells everyone, those who wait for an answer last.
    fn apply(&self, turn: &mut Turn) {
        let mut answers = Vec::with_capacity(turn.requests);
        let mut responders = Vec::with_capacity(turn.entries.len());
        let began = Instant::now();
        let (revision, index, auth);
        {
            let mut state = self.state.write().expect("the only writer has not panicked");
            for (entry, responder) in turn.entries.drain(..) {
                let attendants = match &entry.payload {
                    Payload::Normal(Proposal(batch)) => self.attendants.take(batch.origin),
                    Payload::Blank | Payload::Membership(_) => None,
                };
                let mut attendants = attendants.into_iter().flatten();
                state.apply(&entry, |store, command, applied| {
                    self.feed.record(store);
                    if let Ok(outcome) = &applied.outcome {
                        self.counters.operations.note(outcome);
                        if matches!(outcome, Outcome::Compacted) {
                            self.sweeping.send_replace(true);
                            self.compacted.notify_one();
                        }
                        self.set_clock(outcome, command);
                        self.set_tokens(outcome);
                    }
                    answers.extend(attendants.next().map(|answer| (answer, applied)));
                });
                responders.extend(responder);
            }
            revision = state.store.revision();
            index = state.last_applied.map_or(0, |last| last.index);
            auth = Arc::clone(&state.auth);
            self.size.store(state.store.size_bytes(), Ordering::Relaxed);
        }
        self.counters.requests_applied.add(turn.requests as u64);
        self.counters.bytes_applied.add(turn.bytes);
        self.counters.batches_applied.add(turn.batches);
        self.counters.applies.observe(began.elapsed());
        (turn.requests, turn.bytes, turn.batches) = (0, 0, 0);
        self.publish(revision, index, auth);
        for (answer, applied) in answers {
            // Who no longer waits needs no answer.
            drop(answer.send(Ok(applied)));
        }
        for responder in responders {
            responder.send(());
        }
    }

    /// Rights come first: who sees a change sees those that it was made with.
    fn publish(&self, revision: i64, index: u64, auth: Arc<AuthStore>) {
        self.auth.send_if_modified(|current| {
            let is_new = !Arc::ptr_eq(current, &auth);
            *current = auth;
            is_new
        });
        self.revisions.send_if_modified(|current| std::mem::replace(current, revision) != revision);
        self.applied.send_replace(index);
    }

    /// Tells tokens what was applied.
    fn set_tokens(&self, outcome: &Outcome) {
        if let Outcome::Auth(outcome) = outcome {
            self.tokens().follow(self.token_clock.now(), outcome);
        }
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().expect("nothing that holds it panics")
    }

    /// Whom a simple token names.
    pub(super) fn token_user(&self, text: &str) -> Option<Arc<str>> {
        self.tokens().user(self.token_clock.now(), text)
    }

    /// Tells the clock of leases what was applied.
    fn set_clock(&self, outcome: &Outcome, command: &Command) {
        let (Outcome::LeaseGranted | Outcome::LeaseRevoked) = outcome else { return };
        let mut clock = self.clock();
        let Some(clock) = &mut *clock else { return };
        match command {
            Command::LeaseGrant { id, ttl_seconds } => {
                clock.grant(self.lease_time.now(), *id, *ttl_seconds);
                self.clock_changed.notify_one();
            }
            Command::LeaseRevoke { id, .. } => clock.revoke(*id),
            _ => {}
        }
    }

    /// The term in which this member leads and has applied what came before; else 0.
    pub(super) fn leading_term(&self) -> u64 {
        self.leading_term.load(Ordering::Acquire)
    }

    pub(super) fn has_clock(&self) -> bool {
        self.clock().is_some()
    }

    /// Starts the clock: this member leads in `term` and has applied what came before.
    pub(super) fn start_clock(&self, extension: Duration, term: u64) {
        let state = self.state();
        let leases = state.store.leases().filter_map(|id| Some((id, state.store.lease_ttl_seconds(id)?)));
        *self.clock() = Some(LeaseClock::start(self.lease_time.now(), extension, leases));
        self.leading_term.store(term, Ordering::Release);
        self.applied.send_modify(|_| {});
    }

    /// Stops the clock: this member no longer leads.
    pub(super) fn stop_clock(&self) {
        self.leading_term.store(0, Ordering::Release);
        *self.clock() = None;
        // Whoever waits for the end of a lease looks again.
        self.applied.send_modify(|_| {});
    }

    /// Looks at the clock; nothing if this member does not lead.
    pub(super) fn with_clock<R>(&self, look: impl FnOnce(&mut LeaseClock, Instant) -> R) -> Option<R> {
        self.clock().as_mut().map(|clock| look(clock, self.lease_time.now()))
    }

    /// Lets go of what compactions forgot, at no more than so many keys. Returns whether there is more to do.
    pub(super) fn sweep(&self, max_keys: usize) -> bool {
        let mut state = self.state.write().expect("the only writers have not panicked");
        let more = state.store.compact_step(max_keys);
        self.size.store(state.store.size_bytes(), Ordering::Relaxed);
        if !more {
            // Under the lock, so that a compaction that comes now is not said to be done.
            self.sweeping.send_replace(false);
        }
        more
    }

    /// Waits until nothing that compactions forgot is in memory any more.
    pub(super) async fn swept(&self) {
        // The sender lives as long as this.
        let _ = self.sweeping.subscribe().wait_for(|sweeping| !sweeping).await;
    }

    /// About how many bytes the store has.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether the store refuses every change.
    pub(super) fn is_corrupt(&self) -> bool {
        self.state().alarms.has(AlarmKind::Corrupt)
    }

    pub(super) fn has_lease(&self, id: LeaseId) -> bool {
        self.state().store.lease_ttl_seconds(id).is_some()
    }
}

/// Entries that are applied under one lock.
#[derive(Default)]
struct Turn {
    entries: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>,
    /// At least one for each entry, so that many empty ones do not make it long either.
    requests: usize,
    bytes: u64,
    batches: u64,
}

impl Turn {
    fn push(&mut self, (entry, responder): (Entry, Option<ApplyResponder<TypeConfig>>)) {
        if let Payload::Normal(Proposal(batch)) = &entry.payload {
            let bytes: usize = batch.requests.iter().map(|request| weight(&request.command)).sum();
            self.bytes += bytes as u64;
            self.requests += batch.requests.len().max(1);
            self.batches += 1;
        } else {
            self.requests += 1;
        }
        self.entries.push((entry, responder));
    }
}

/// A snapshot that is whole, and its file.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) meta: SnapshotMeta,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

impl From<Current> for Snapshot {
    fn from(Current { meta, path, file }: Current) -> Self {
        Self { meta, snapshot: SnapshotFile { path, file } }
    }
}

/// The snapshot that there is, and who writes the next.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    pub(super) platform: Platform,
    pub(super) dir: PathBuf,
    pub(super) cluster_id: u64,
    /// With its file open: another takes its place on disk at any time.
    pub(super) current: Arc<Mutex<Option<Current>>>,
    pub(super) folder: Folder,
    /// The index of the last entry that is in the snapshot.
    pub(super) newest: watch::Sender<u64>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
}

/// The right to change the data folder, which ends before another process, or the next engine of this one, gets it.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder(Arc<Mutex<Released>>);

#[derive(Debug, Default)]
struct Released(bool);

impl Folder {
    /// Lets go of the folder by `release`, once no one changes it any more.
    pub(super) fn release(&self, release: impl FnOnce()) {
        // Whoever panicked no longer changes it.
        let mut released = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        released.0 = true;
        release();
    }

    /// Changes the folder, one at a time, unless it was let go of.
    fn change<T>(&self, change: impl FnOnce() -> Result<T, SnapshotError>) -> io::Result<T> {
        let released = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if released.0 {
            return Err(io::Error::other("the store is stopped"));
        }
        change().map_err(io::Error::other)
    }
}

impl Snapshots {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().expect("nothing that holds it panics")
    }

    /// Bytes of the snapshot that there is.
    pub(super) fn bytes(&self) -> u64 {
        let file = self.current().as_ref().map(|current| Arc::clone(&current.file));
        file.and_then(|file| file.len().ok()).unwrap_or(0)
    }

    fn replace(&self, new: Current) {
        let mut current = self.current();
        if current.as_ref().is_none_or(|older| older.meta.last_log_id <= new.meta.last_log_id) {
            let index = new.meta.last_log_id.map_or(0, |last| last.index);
            *current = Some(new);
            self.newest.send_replace(index);
        }
    }

    /// Changes files, away from the tasks that must not wait.
    async fn blocking<T: Send + 'static>(
        &self,
        change: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    ) -> io::Result<T> {
        let folder = self.folder.clone();
        self.platform.blocking(move || folder.change(change)).await?
    }
}

/// The state as openraft sees it.
#[derive(Debug)]
pub(super) struct StateMachine {
    pub(super) shared: Arc<Shared>,
    pub(super) snapshots: Snapshots,
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.shared.state();
        Ok((state.last_applied, state.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<(Entry, Option<ApplyResponder<TypeConfig>>)>> + Unpin + Send,
    {
        let mut turn = Turn::default();
        while let Some(entry) = entries.next().await {
            turn.push(entry?);
            if turn.requests >= TURN_LEN {
                self.shared.apply(&mut turn);
            }
        }
        self.shared.apply(&mut turn);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // Nothing is applied while this is copied, but reads go on. Keys and values are shared, not copied.
        let state = Arc::new(self.shared.state().clone());
        SnapshotBuilder { state, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, received: SnapshotFile) -> io::Result<()> {
        let (disk, dir) = (Arc::clone(&self.snapshots.platform.disk), self.snapshots.dir.clone());
        let named = snapshot::path(&dir, meta.last_log_id);
        let (path, file) = (named.clone(), Arc::clone(&received.file));
        let loaded = self.snapshots.blocking(move || {
            let loaded = snapshot::read(&received.path, &*received.file)?;
            if received.path != path {
                snapshot::finish(&*disk, &dir, &received.path, &path)?;
            }
            Ok(loaded)
        });
        let state = loaded.await?.state;
        self.snapshots.replace(Current { meta: meta.clone(), path: named, file });
        let (revision, index) = (state.store.revision(), state.last_applied.map_or(0, |last| last.index));
        let auth = Arc::clone(&state.auth);
        {
            let mut current = self.shared.state.write().expect("the only writer has not panicked");
            self.shared.feed.replace(&state.store);
            self.shared.size.store(state.store.size_bytes(), Ordering::Relaxed);
            *current = state;
        }
        // Which passwords were changed meanwhile is not known.
        self.shared.tokens().clear();
        self.shared.publish(revision, index, auth);
        self.shared.attendants.abandon();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.current().clone().map(Snapshot::from))
    }
}

/// Writes a copy of the state to a file.
#[derive(Debug)]
pub(super) struct SnapshotBuilder {
    state: Arc<State>,
    snapshots: Snapshots,
}

impl SnapshotBuilder {
    async fn write(&self, meta: SnapshotMeta) -> io::Result<Current> {
        let Snapshots { platform, dir, cluster_id, counters, .. } = self.snapshots.clone();
        let state = Arc::clone(&self.state);
        let write = move || {
            let began = Instant::now();
            let path = snapshot::write(&*platform.disk, &dir, cluster_id, &meta, &state)?;
            counters.snapshots.observe(began.elapsed());
            let file = platform.disk.open(&path, Access::Read).map_err(SnapshotError::io("open", &path))?;
            Ok(Current { meta, path, file })
        };
        self.snapshots.blocking(write).await
    }
}

/// Whether there was no room for a snapshot.
fn full(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<SnapshotError>());
    error.is_some_and(SnapshotError::is_full)
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = self.state.meta();
        let written = loop {
            match self.write(meta.clone()).await {
                // Nothing is lost by waiting but room in the log.
                Err(error) if full(&error) => {
                    warn!(%error, "the disk is full: the snapshot waits for room");
                    self.snapshots.counters.snapshots_failed.add(1);
                    tokio::select! {
                        biased;
                        () = self.snapshots.stop.cancelled() => return Err(error),
                        () = sleep(ROOM_PAUSE) => {}
                    }
                }
                outcome => break outcome?,
            }
        };
        self.snapshots.replace(written.clone());
        Ok(written.into())
    }
}

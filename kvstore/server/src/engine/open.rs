//! From a data folder to an engine that runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, ReadPolicy, SnapshotPolicy};
use tokio::sync::{Notify, SetOnce, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::batch::Request;
use super::bootstrap::{founders, identify};
use super::codec::{Durable, encode_prologue};
use super::counters::{Counters, count_leaders};
use super::error::task_failed;
use super::forward::ToLeader;
use super::identity::Identity;
use super::log::{Failure, LogStore, MemoryLog, ReadError, Replay, SharedLog, Write, Writer};
use super::membership::keep_members;
use super::network::Network;
use super::peers::{PeerListener, PeerService, Peers, bind, serve};
use super::proposals::{self, Proposals};
use super::reads::Rounds;
use super::snapshot;
use super::snapshot_policy;
use super::standalone::go_on_alone;
use super::state_machine::{Current, Folder, Shared, Snapshots, State, StateMachine};
use super::sweep;
use super::types::{Raft, SnapshotMeta};
use super::{Alarm, AlarmKind, ClusterOptions, Command, Engine, EngineOptions, Inner, OpenError, leases};
use crate::platform::Platform;
use crate::wal::disk::{Access, Disk, create_dirs};
use crate::wal::{Making, Place, Room, Wal};

/// How long a member of a cluster of one may take until it leads.
const LEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait before it is asked again whether it does.
const PAUSE: Duration = Duration::from_millis(10);

/// Where the log is.
pub(super) fn wal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("wal")
}

fn snapshot_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("snap")
}

/// What was found on disk.
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) log: LogStore,
    pub(super) memory: SharedLog,
    pub(super) writer: Writer,
    pub(super) room: Room,
    pub(super) queue: mpsc::Receiver<Write>,
    pub(super) state: State,
    pub(super) snapshot: Option<Current>,
}

#[expect(
    clippy::too_many_lines,
    reason = "every part is made once, in the order in which they need each other"
)]
pub(super) async fn open(options: EngineOptions, platform: Platform) -> Result<Engine, OpenError> {
    let config = Arc::new(config(&options)?);
    let mut listeners = Vec::new();
    for url in &options.peers.listen {
        let listener = bind(url, options.peers.tls.as_ref());
        listeners.push(listener.map_err(|source| OpenError::Listen { url: url.to_string(), source })?);
    }
    #[cfg(test)]
    if let Some(simulated) = &platform.simulated {
        listeners.push(PeerListener::simulated(simulated.listen()));
    }
    let new = if is_empty(&*platform.disk, &wal_dir(&options.data_dir)) {
        Some(identify(&options, &platform).await?)
    } else {
        None
    };
    let goes_on_alone = options.cluster.force_new && new.is_none();
    let surroundings = Surroundings::default();
    let (failure, counters) = (Arc::clone(&surroundings.failure), Arc::clone(&surroundings.counters));
    let stop = surroundings.stop.clone();
    let (from, on, making) = (options.clone(), Arc::clone(&platform.disk), platform.making);
    let found = platform.blocking(move || recover_as(&from, new, &on, making, &surroundings));
    let Found { identity, mut log, memory, writer, room, queue, state, snapshot } =
        found.await.map_err(|ended| OpenError::Failed { reason: ended.to_string() })??;
    let needed_log_bytes = writer.needed_bytes();

    let (membership, last_applied) = (state.membership.clone(), state.last_applied);
    let tracker = TaskTracker::new();
    let session = fastrand::u64(..);
    let shared = Arc::new(Shared::new(
        state,
        identity.member_id,
        session,
        options.token_ttl,
        &platform.clock,
        Arc::clone(&counters),
    ));
    let snapshots = Snapshots {
        platform: platform.clone(),
        dir: snapshot_dir(&options.data_dir),
        cluster_id: identity.cluster_id,
        current: Arc::new(Mutex::new(snapshot)),
        folder: Folder::default(),
        newest: watch::Sender::new(0),
        counters: Arc::clone(&counters),
        stop: stop.clone(),
    };
    let folder = snapshots.folder.clone();
    let writer = spawn_writer(&tracker, &platform, writer, queue, folder);
    if goes_on_alone {
        // If this fails, the log is dropped, and its writer ends.
        go_on_alone(&mut log, &memory, &membership, last_applied, &options, identity).await?;
    }
    let tls = options.peers.tls.clone();
    let peers = Peers::new(identity, tls, platform, options.election_timeout, stop.clone());
    let state_machine = StateMachine { shared: Arc::clone(&shared), snapshots: snapshots.clone() };
    // As above.
    let raft = Raft::new(identity.member_id, config, Network(peers.clone()), log, state_machine).await;
    let raft = raft.map_err(|error| OpenError::Failed { reason: task_failed(&error, &failure) })?;
    let keeper = tracker.spawn(keep(raft.clone(), stop.clone()));
    let (proposals, requests) = Proposals::new();
    let to_leader = ToLeader {
        raft: raft.clone(),
        identity,
        failure: Arc::clone(&failure),
        peers: peers.clone(),
        attendants: Arc::clone(&shared.attendants),
        patience: patience(&options),
        heartbeat: options.heartbeat,
        stop: stop.clone(),
    };
    let proposer = proposals::run(to_leader, Arc::clone(&shared.attendants), requests, stop.clone());
    let proposer = tracker.spawn(proposer);
    let short = Arc::new(Notify::new());
    let alarm = Alarm { kind: AlarmKind::NoSpace, member_id: identity.member_id };
    let alarmist = raise(alarm, proposals.clone(), Arc::clone(&shared), Arc::clone(&short), stop.clone());
    let alarmist = tracker.spawn(alarmist);
    let applied = shared.applied.subscribe();
    let requests = options.snapshot_entries;
    let policy =
        snapshot_policy::run(raft.clone(), memory, snapshots.clone(), applied, requests, stop.clone());
    let policy = tracker.spawn(policy);
    let sweeper = tracker.spawn(sweep::run(Arc::clone(&shared), stop.clone()));
    let lessor = leases::run(raft.clone(), Arc::clone(&shared), options.election_timeout, stop.clone());
    let lessor = tracker.spawn(lessor);
    let leaders = tracker.spawn(count_leaders(raft.server_metrics(), Arc::clone(&counters), stop.clone()));

    let tasks = Mutex::new(vec![
        ("raft", keeper),
        ("proposals", proposer),
        ("alarms", alarmist),
        ("snapshots", policy),
        ("compaction", sweeper),
        ("leases", lessor),
        ("leaders", leaders),
        ("log writer", writer),
    ]);
    let inner = Inner {
        server_metrics: raft.server_metrics(),
        raft,
        proposals,
        peers,
        rounds: Rounds::default(),
        changes: tokio::sync::Mutex::default(),
        shared,
        snapshots,
        identity,
        options,
        failure,
        needed_log_bytes,
        room,
        short,
        counters,
        published: SetOnce::new(),
        stop,
        tracker,
        tasks,
    };
    let engine = Engine(Arc::new(inner));
    engine.attend(listeners);
    if let Err(error) = engine.begin().await {
        // The error that led here says more than one of the end.
        let _ = engine.shutdown().await;
        return Err(error);
    }
    let status = engine.status();
    info!(
        cluster_id = format!("{:016x}", status.cluster_id),
        member_id = format!("{:016x}", status.member_id),
        is_leader = status.is_leader,
        term = status.term,
        applied_index = status.applied_index,
        revision = engine.read(landbridge_kvstore_store::Store::revision),
        "the store runs"
    );
    Ok(engine)
}

/// Runs the writer of the log in a thread of its own.
fn spawn_writer(
    tracker: &TaskTracker,
    platform: &Platform,
    writer: Writer,
    queue: mpsc::Receiver<Write>,
    folder: Folder,
) -> JoinHandle<()> {
    // With it goes the lock of the folder.
    let end = move |wal: Wal| folder.release(|| drop(wal));
    #[cfg(test)]
    if let Some(simulated) = platform.simulated.clone() {
        return tracker.spawn(async move { end(writer.run_simulated(queue, simulated).await) });
    }
    let _ = platform;
    tracker.spawn_blocking(move || end(writer.run(queue)))
}

/// How long a request may take, as in etcd: 5 s for the disk and the network, and what two elections take.
pub(super) fn patience(options: &EngineOptions) -> Duration {
    Duration::from_secs(5) + options.election_timeout * 2
}

/// Raises an alarm whenever it is asked for, until `stop`.
async fn raise(
    alarm: Alarm,
    proposals: Proposals,
    shared: Arc<Shared>,
    wanted: Arc<Notify>,
    stop: CancellationToken,
) {
    let raising = async {
        loop {
            wanted.notified().await;
            if shared.state().alarms.iter().any(|raised| raised == alarm) {
                continue;
            }
            warn!(
                "the store has as many bytes as it may: it takes no more until there is room and the alarm cleared"
            );
            let command = Command::Alarm { alarm, raised: true };
            // If that fails, the next write that is refused asks for it again.
            drop(proposals.propose(Request { command, auth_revision: 0 }).await);
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = raising => {}
    }
}

/// Ends openraft at the end of the engine, or with its last handle.
async fn keep(raft: Raft, stop: CancellationToken) {
    stop.cancelled().await;
    // It has no outcome but that it has ended.
    let _ = raft.shutdown().await;
}

impl Engine {
    /// Answers other members and cares for the membership from now on.
    fn attend(&self, listeners: Vec<PeerListener>) {
        let Inner { tracker, tasks, stop, options, .. } = &*self.0;
        let mut tasks = tasks.lock().expect("nothing that holds it panics");
        if !listeners.is_empty() {
            let serving = serve(listeners, PeerService::new(self), options.election_timeout, stop.clone());
            tasks.push(("peers", tracker.spawn(serving)));
        }
        let members = keep_members(Arc::downgrade(&self.0), options.heartbeat, stop.clone());
        tasks.push(("members", tracker.spawn(members)));
    }

    /// Makes the cluster if it is new. If this member is alone in it, waits until it leads and watches its leases.
    async fn begin(&self) -> Result<(), OpenError> {
        let Inner { raft, shared, identity, options, failure, .. } = &*self.0;
        let failed =
            |error: &dyn std::error::Error| OpenError::Failed { reason: task_failed(error, failure) };
        if !raft.is_initialized().await.map_err(|error| failed(&error))? {
            let founders = founders(options, *identity);
            if !founders.is_empty() {
                // All founders do so. It is the same entry everywhere, which openraft allows.
                match raft.initialize(founders).await {
                    // The leader was faster.
                    Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                    Err(error) => return Err(failed(&error)),
                }
            }
        }
        // Alone, there is no one to wait for: no other leader, and no other candidate.
        let own = identity.member_id;
        // Of openraft itself: what it tells everyone comes a moment after its answers.
        let alone =
            raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([own]));
        let alone = alone.await.map_err(|error| failed(&error))?;
        if !alone {
            return Ok(());
        }
        raft.trigger().elect(false).await.map_err(|error| failed(&error))?;
        let deadline = Instant::now() + LEAD_WITHIN;
        let no_leader = || OpenError::NoLeader { waited: LEAD_WITHIN };
        loop {
            let asked = timeout_at(deadline, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
            match asked {
                Ok(Ok(_)) => break,
                Ok(Err(RaftError::Fatal(error))) => return Err(failed(&error)),
                Ok(Err(_)) if Instant::now() < deadline => sleep(PAUSE).await,
                Ok(Err(_)) | Err(_) => return Err(no_leader()),
            }
        }
        let mut applied = shared.applied.subscribe();
        while shared.with_clock(|_, _| ()).is_none() {
            // The sender lives as long as this engine.
            let _ = timeout_at(deadline, applied.changed()).await.map_err(|_| no_leader())?;
        }
        // openraft answers before it tells everyone, and whoever comes first would hear that no one leads.
        let mut metrics = raft.metrics();
        while !metrics.borrow_watched().state.is_leader() || metrics.borrow_watched().current_leader.is_none()
        {
            timeout_at(deadline, metrics.changed())
                .await
                .map_err(|_| no_leader())?
                .map_err(|_| no_leader())?;
        }
        Ok(())
    }
}

fn config(options: &EngineOptions) -> Result<Config, OpenError> {
    let invalid = |reason: String| OpenError::Options { reason };
    let millis = |duration: Duration, name: &str| {
        u64::try_from(duration.as_millis())
            .ok()
            .filter(|millis| (1..=3_600_000).contains(millis))
            .ok_or_else(|| invalid(format!("{name} is {duration:?}, set it to 1 ms to 1 h")))
    };
    let election_timeout = millis(options.election_timeout, "election_timeout")?;
    let heartbeat = millis(options.heartbeat, "heartbeat")?;
    if options.snapshot_entries == 0 {
        return Err(invalid("snapshot_entries is 0, set it to 1 or more".to_owned()));
    }
    let config = Config {
        cluster_name: options.cluster.token.clone(),
        heartbeat_interval: heartbeat,
        election_timeout_min: election_timeout,
        election_timeout_max: election_timeout * 2,
        // A member that comes back must not unseat a leader that the others follow.
        enable_pre_vote: Some(true),
        // A leader that comes back has to prove that it is one, by an entry of a new term. What is applied may be older
        // than what it answered before: that entries are committed is not on disk at once.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        // `snapshot_policy` decides about both.
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: options.snapshot_entries.saturating_mul(2),
        ..Config::default()
    };
    config.validate().map_err(|error| invalid(error.to_string()))
}

fn is_empty(disk: &dyn Disk, dir: &Path) -> bool {
    disk.list(dir).map_or(true, |files| files.is_empty())
}

/// What the one who writes the log shares with the others.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) failure: Failure,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
}

/// Reads what is on disk. Blocks.
#[cfg(test)]
pub(super) fn recover_data(
    options: &EngineOptions,
    disk: &Arc<dyn Disk>,
    making: Making,
    surroundings: &Surroundings,
) -> Result<Found, OpenError> {
    recover_as(options, None, disk, making, surroundings)
}

/// Reads what is on disk, of a member that is `new` if there is nothing. Blocks.
pub(super) fn recover_as(
    options: &EngineOptions,
    new: Option<Identity>,
    disk: &Arc<dyn Disk>,
    making: Making,
    surroundings: &Surroundings,
) -> Result<Found, OpenError> {
    let (wal_dir, snapshot_dir) = (wal_dir(&options.data_dir), snapshot_dir(&options.data_dir));
    for dir in [&wal_dir, &snapshot_dir] {
        create_dirs(&**disk, dir).map_err(OpenError::io("create", dir))?;
    }
    let ClusterOptions { token, initial, .. } = &options.cluster;
    let advertise = &options.peers.advertise;
    // A log that has no beginning is left of a crash during the first start.
    let new = new.unwrap_or_else(|| match initial.as_slice() {
        [] => Identity::alone(token, advertise, fastrand::u64(..)),
        initial => Identity::of_cluster(token, initial, advertise),
    });
    let prologue = encode_prologue(new, &Durable::default());
    // Holds the lock of the data folder from here on.
    let mut replay = Replay::default();
    let mut visit = |place: &Place, payload: &[u8]| replay.frame(place.number(), payload, Some(place));
    let (wal, opened) = Wal::open_on(Arc::clone(disk), &wal_dir, options.wal, making, &prologue, &mut visit)?;
    let recovered = replay.finish(opened.prologue.as_deref().unwrap_or(&prologue));
    let recovered =
        recovered.map_err(|error| OpenError::Log { path: wal_dir.clone(), source: error.into() })?;
    let identity = recovered.identity;
    let (mut log, writer) = recovered.into_parts();

    snapshot::remove_unfinished(&**disk, &snapshot_dir)?;
    let (mut state, snapshot) = match snapshot::list(&**disk, &snapshot_dir)?.into_iter().next() {
        None => (State::default(), None),
        Some(path) => {
            let file = disk.open(&path, Access::Read).map_err(OpenError::io("open", &path))?;
            let loaded = snapshot::read(&path, &*file)?;
            // A log that is as new as its identity is of no cluster yet: that it is the wrong one is told below.
            if loaded.cluster_id != identity.cluster_id && log.vote.is_some() {
                let (ours, theirs) = (identity.cluster_id, loaded.cluster_id);
                return Err(OpenError::ForeignSnapshot { path, theirs, ours });
            }
            let meta = SnapshotMeta {
                last_log_id: loaded.state.last_applied,
                last_membership: loaded.state.membership.clone(),
            };
            (loaded.state, Some(Current { meta, path, file }))
        }
    };
    check_fit(&log, &state, &wal_dir, &snapshot_dir)?;
    let from = state.last_applied.map_or(0, |last| last.index.saturating_add(1));
    let upto = log.committed.map_or(0, |committed| committed.index.saturating_add(1));
    let unreadable = |error: ReadError| OpenError::Log { path: wal_dir.clone(), source: error.into() };
    for entry in log.read(from..upto).map_err(unreadable)? {
        state.apply(&entry, |_, _, _| {});
    }
    log.let_go();
    info!(
        frames = opened.frames,
        torn_bytes = opened.torn_bytes,
        revision = state.store.revision(),
        "the store was read from disk"
    );
    let (log, shared_log, queue) = LogStore::new(log);
    let memory = shared_log.clone();
    let Surroundings { failure, counters, stop } = surroundings;
    let (failure, counters, stop) = (Arc::clone(failure), Arc::clone(counters), stop.clone());
    let room = wal.room();
    let writer = writer.writer(wal, shared_log, failure, counters, stop);
    Ok(Found { identity, log, memory, writer, room, queue, state, snapshot })
}

/// Checks that the log goes on where the snapshot ends, or before.
fn check_fit(log: &MemoryLog, state: &State, wal_dir: &Path, snapshot_dir: &Path) -> Result<(), OpenError> {
    if log.purged.map(|purged| purged.index) > state.last_applied.map(|last| last.index) {
        let index = log.purged.map_or(0, |purged| purged.index);
        return Err(OpenError::SnapshotLost { path: snapshot_dir.to_owned(), index });
    }
    // Whoever has applied an entry has voted in its term.
    let voted = log.vote.map(|vote| vote.leader_id().term);
    if state.last_applied.is_some_and(|last| Some(**last.committed_leader_id()) > voted) {
        return Err(OpenError::LogLost { path: wal_dir.to_owned() });
    }
    Ok(())
}

/// Bytes of all files of a folder, as far as they can be seen.
pub(super) fn folder_bytes(disk: &dyn Disk, dir: &Path) -> u64 {
    let files = disk.list(dir).unwrap_or_default();
    files.iter().filter_map(|path| disk.file_len(path).ok()).sum()
}

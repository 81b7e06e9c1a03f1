//! The engine on real files: what was answered lasts, whatever happens to the process, and time ends leases.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use landbridge_kvstore_server::engine::{
    Applied, Command, Engine, EngineOptions, OpenError, Outcome, ProposeError, ReadError,
};
use landbridge_kvstore_server::wal::{Wal, WalError, WalOptions};
use landbridge_kvstore_store::auth::{AuthChange, AuthCommand, AuthStore};
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, PutRequest, RangeRequest,
    Store, StoreError, StorePart, TxnLimits, TxnRequest,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Names the data folder of the engine that a second run of a test is to write to until it is killed.
const VICTIM: &str = "LANDBRIDGE_TEST_VICTIM_ENGINE";
/// Within this, everything that a test waits for happens, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// Small, so that a few commands fill several segments and make snapshots.
fn options(dir: &Path) -> EngineOptions {
    EngineOptions {
        wal: WalOptions { segment_bytes: 4 << 10, spares: 1 },
        snapshot_entries: 20,
        election_timeout: Duration::from_millis(200),
        heartbeat: Duration::from_millis(50),
        ..EngineOptions::new(dir)
    }
}

/// Opens an engine that no one uses. Another test that starts a process may hold a copy of the lock's descriptor for the
/// moment between its fork and its exec.
async fn try_open(options: EngineOptions) -> Result<Engine, OpenError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Engine::open(options.clone()).await {
            Err(OpenError::Wal(WalError::InUse { .. })) if Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

async fn open(dir: &Path) -> Engine {
    try_open(options(dir)).await.unwrap()
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

fn put_with_lease(key: &'static str, lease: LeaseId) -> Command {
    Command::Put(PutRequest { key: key.into(), lease: Some(lease), ..PutRequest::default() })
}

fn lease(id: i64) -> LeaseId {
    LeaseId::new(id).unwrap()
}

fn parts(engine: &Engine) -> Vec<StorePart> {
    engine.read(|store| store.parts().collect())
}

fn value(store: &Store, key: &str) -> Option<Bytes> {
    let range = KeyRange::Single(Bytes::copy_from_slice(key.as_bytes()));
    store.range(&RangeRequest::new(range)).unwrap().kvs.first().map(|kv| Bytes::copy_from_slice(kv.value()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Waits until something holds that changes with the disk, which tells no one.
async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until there is a snapshot of the entry `index` or a later one.
async fn snapshot_upto(dir: &Path, index: u64) -> PathBuf {
    let last = || files(&dir.join("snap")).pop();
    let reached = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.strip_suffix(".snap").is_some_and(|hex| u64::from_str_radix(hex, 16).unwrap() >= index)
    };
    until(|| last().as_ref().is_some_and(reached)).await;
    last().unwrap()
}

#[test]
fn what_was_answered_survives_a_kill() {
    if let Ok(dir) = env::var(VICTIM) {
        block_on(async {
            let engine = open(Path::new(&dir)).await;
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..8 {
                let engine = engine.clone();
                writers.spawn(async move {
                    for count in 0u64.. {
                        let key = format!("{}/{writer}", count % 5);
                        let applied = engine.propose(put(key.clone(), count.to_string())).await.unwrap();
                        println!("answered {key} {count} {}", applied.revision);
                    }
                });
            }
            while writers.join_next().await.is_some() {}
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let mut revision_before = 1;
    for _ in 0..5 {
        let mut command = process::Command::new(env::current_exe().unwrap());
        command.args(["--exact", "what_was_answered_survives_a_kill", "--nocapture"]).env(VICTIM, dir.path());
        let mut victim = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut answered: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        let mut note = |line: String| {
            // The harness puts the test's name before the first line; the last one may be torn.
            let (_, answer) = line.rsplit_once("answered ")?;
            let [key, count, revision] = answer.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let (count, revision) = (count.parse().ok()?, revision.parse().ok()?);
            let last = answered.entry(key.to_owned()).or_insert((count, revision));
            *last = (*last).max((count, revision));
            Some(())
        };
        for _ in 0..300 {
            note(lines.next().unwrap().unwrap());
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        // What it said before it died counts, too; the last line may be cut.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        for line in rest.into_iter().take(whole) {
            note(line);
        }

        block_on(async {
            let engine = open(dir.path()).await;
            let revision = engine.read(Store::revision);
            for (key, (count, at)) in &answered {
                assert!(*at > revision_before && *at <= revision, "{key} at {at} of {revision}");
                // Each writer has one put under way at most, which may have made it to the disk.
                let found = engine.read(|store| value(store, key)).unwrap();
                let found: u64 = std::str::from_utf8(&found).unwrap().parse().unwrap();
                assert!(found == *count || found == *count + 5, "{key} is {found}, {count} was answered");
            }
            // It goes on where it was.
            assert_eq!(engine.propose(put("more", "")).await.unwrap().revision, revision + 1);
            revision_before = revision + 1;
            engine.shutdown().await.unwrap();
        });
    }
}

#[test]
fn a_restart_changes_nothing_but_the_term() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        engine.propose(Command::LeaseGrant { id: lease(7), ttl_seconds: 600 }).await.unwrap();
        for count in 0..30 {
            engine.propose(put(format!("key/{}", count % 4), count.to_string())).await.unwrap();
        }
        engine.propose(put_with_lease("leased", lease(7))).await.unwrap();
        engine.propose(Command::Compact { revision: 9 }).await.unwrap();
        let (before, status) = (parts(&engine), engine.status());
        assert_ne!(status.cluster_id, 0);
        assert_ne!(status.member_id, 0);
        assert_ne!(status.member_id, status.cluster_id);
        assert_eq!((status.leader, status.is_leader), (Some(status.member_id), true));
        engine.shutdown().await.unwrap();

        // Who a member is does not change with its settings.
        let mut moved = options(dir.path());
        moved.peers.advertise = vec!["https://elsewhere:2380".to_owned()];
        let engine = try_open(moved).await.unwrap();
        assert_eq!(parts(&engine), before);
        let after = engine.status();
        assert_eq!((after.cluster_id, after.member_id), (status.cluster_id, status.member_id));
        assert!(after.term > status.term, "{} then {}", status.term, after.term);
        // Its full time, and the election timeout.
        let remaining = engine.lease_remaining(lease(7));
        assert!(remaining > Some(Duration::from_secs(590)), "{remaining:?}");
        assert_eq!(engine.renew_lease(lease(7)).await.unwrap(), Some(600));
        let refused = engine.propose(Command::LeaseGrant { id: lease(7), ttl_seconds: 1 }).await.unwrap();
        assert_eq!(refused.outcome, Err(StoreError::LeaseExists));
        engine.shutdown().await.unwrap();
    });
}

/// Its revisions begin again, so that clients must not take it for the one that is gone.
#[test]
fn a_store_that_is_made_anew_is_another_cluster() {
    block_on(async {
        let mut clusters = Vec::new();
        for _ in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let engine = open(dir.path()).await;
            clusters.push(engine.status().cluster_id);
            engine.shutdown().await.unwrap();
        }
        assert_ne!(clusters[0], clusters[1]);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Propose(Command),
    /// All at once, each a put of its own key.
    ProposeMany(u8),
    Reopen,
    /// Without a word to anyone, in the middle of whatever is under way.
    Drop,
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a/b", "b", "b\0", "c"]).prop_map(Bytes::from)
}

fn any_op() -> impl Strategy<Value = Op> {
    let value = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        4 => (any_key(), value, prop::option::of(1i64..4)).prop_map(|(key, value, id)| {
            Op::Put(PutRequest { key, value: value.into(), lease: id.map(lease), ..PutRequest::default() })
        }),
        1 => any_key().prop_map(|key| Op::Delete(DeleteRequest { range: KeyRange::prefix(&key), prev_kv: true })),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let compare = (any_key(), 0i64..3).prop_map(|(key, version)| Compare {
        range: KeyRange::Single(key),
        operator: CompareOperator::Greater,
        target: CompareTarget::Version(version),
    });
    let ops = || prop::collection::vec(any_op(), 0..3);
    let txn = (prop::collection::vec(compare, 0..2), ops(), ops());
    prop_oneof![
        6 => any_op().prop_map(|op| match op {
            Op::Put(put) => Command::Put(put),
            Op::Delete(delete) => Command::DeleteRange(delete),
            Op::Range(_) | Op::Txn(_) => unreachable!("not generated"),
        }),
        3 => txn.prop_map(|(compare, success, failure)| Command::Txn(TxnRequest { compare, success, failure })),
        2 => (1i64..4).prop_map(|id| Command::LeaseGrant { id: lease(id), ttl_seconds: 3600 }),
        1 => (1i64..4).prop_map(|id| Command::LeaseRevoke { id: lease(id), within: None }),
        1 => (1i64..60).prop_map(|revision| Command::Compact { revision }),
        2 => any_change().prop_map(|change| Command::Auth(AuthCommand { by: "root".into(), change })),
    ]
}

fn any_change() -> impl Strategy<Value = AuthChange> {
    let name = || prop::sample::select(vec!["root", "a", "b"]).prop_map(str::to_owned);
    prop_oneof![
        Just(AuthChange::Enable),
        Just(AuthChange::Disable),
        (name(), any::<bool>()).prop_map(|(name, no_password)| AuthChange::UserAdd {
            name,
            password_hash: "hash".into(),
            no_password
        }),
        name().prop_map(|name| AuthChange::UserDelete { name }),
        name().prop_map(|name| AuthChange::RoleAdd { name }),
        (name(), name()).prop_map(|(user, role)| AuthChange::UserGrantRole { user, role }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => any_command().prop_map(Step::Propose),
        2 => (1u8..40).prop_map(Step::ProposeMany),
        1 => Just(Step::Reopen),
        1 => Just(Step::Drop),
    ]
}

/// What the command does to a store that has no engine around it.
fn apply((store, auth): &mut (Store, Arc<AuthStore>), command: &Command) -> Result<Outcome, StoreError> {
    match command {
        Command::Put(put) => store.put(put).map(Outcome::Put),
        Command::DeleteRange(delete) => store.delete(delete).map(Outcome::DeleteRange),
        Command::Txn(txn) => store.txn(txn, TxnLimits::default()).map(Outcome::Txn),
        Command::Compact { revision } => {
            store.compact(*revision).map(|()| Outcome::Compacted).map_err(StoreError::Range)
        }
        Command::LeaseGrant { id, ttl_seconds } => {
            store.grant_lease(*id, *ttl_seconds).map(|()| Outcome::LeaseGranted)
        }
        Command::LeaseRevoke { id, .. } => store.revoke_lease(*id).map(|()| Outcome::LeaseRevoked),
        Command::Auth(command) => Ok(Outcome::Auth(AuthStore::apply(auth, command, 0)?)),
        Command::MemberAttributes { .. } => unreachable!("no step is one"),
        Command::Alarm { .. } => unreachable!("alarms are not part of the store"),
    }
}

/// Whatever is done and however often it is opened again, from snapshots and logs of any length, it is the store that
/// the same commands make.
#[test]
fn the_engine_is_a_store_that_lasts() {
    let mut runner = TestRunner::new(ProptestConfig { cases: 12, ..ProptestConfig::default() });
    let steps = (prop::collection::vec(any_step(), 1..120), 2u64..30);
    let outcome = runner.run(&steps, |(steps, snapshot_entries)| {
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let options = EngineOptions { snapshot_entries, ..options(dir.path()) };
            let mut engine = try_open(options.clone()).await.unwrap();
            let mut model = (Store::new(), Arc::new(AuthStore::default()));
            for step in steps.into_iter().chain([Step::Reopen]) {
                match step {
                    Step::Propose(command) => {
                        let applied = engine.propose(command.clone()).await.unwrap();
                        let outcome = apply(&mut model, &command);
                        let revision = model.0.revision();
                        let Applied { term, .. } = applied;
                        prop_assert_eq!(applied, Applied { outcome, revision, term });
                    }
                    Step::ProposeMany(count) => {
                        let mut puts = tokio::task::JoinSet::new();
                        for number in 0..count {
                            let (engine, command) = (engine.clone(), put(vec![b'm', number], vec![number]));
                            puts.spawn(async move { (engine.propose(command.clone()).await, command) });
                        }
                        let mut applied = BTreeMap::new();
                        while let Some(put) = puts.join_next().await {
                            let (outcome, command) = put.unwrap();
                            applied.insert(outcome.unwrap().revision, command);
                        }
                        // Each has a revision of its own, and that is their order.
                        for (revision, command) in applied {
                            prop_assert!(apply(&mut model, &command).is_ok());
                            prop_assert_eq!(model.0.revision(), revision);
                        }
                    }
                    Step::Reopen => {
                        engine.shutdown().await.unwrap();
                        engine = try_open(options.clone()).await.unwrap();
                    }
                    Step::Drop => {
                        drop(engine);
                        engine = try_open(options.clone()).await.unwrap();
                    }
                }
                let is_equal =
                    engine.read_state(|store, auth| store.parts().eq(model.0.parts()) && *auth == *model.1);
                prop_assert!(is_equal);
                prop_assert_eq!(*engine.revisions().borrow(), model.0.revision());
                let auth = engine.auth();
                let is_equal = *auth.borrow() == model.1;
                prop_assert!(is_equal);
            }
            engine.shutdown().await.unwrap();
            Ok(())
        })
    });
    outcome.unwrap();
}

#[test]
fn concurrent_proposals_share_writes_to_the_disk() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let options =
            EngineOptions { wal: WalOptions::default(), snapshot_entries: 100_000, ..options(dir.path()) };
        let engine = try_open(options.clone()).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..50 {
            let engine = engine.clone();
            writers.spawn(async move {
                for count in 0..20 {
                    engine.propose(put(format!("{writer}/{count}"), "value")).await.unwrap();
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        assert_eq!(engine.read(Store::revision), 1001);
        engine.shutdown().await.unwrap();
        let (wal, _) = Wal::open(&dir.path().join("wal"), options.wal, b"").unwrap();
        let frames = wal.next_number() - 1;
        assert!((20..500).contains(&frames), "{frames} frames for 1000 proposals");
    });
}

#[test]
fn snapshots_let_go_of_the_log() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        for count in 0..150 {
            engine.propose(put("key", vec![b'x'; 1000 + count % 3])).await.unwrap();
            engine.propose(Command::Compact { revision: engine.read(Store::revision) }).await.unwrap();
        }
        let index = engine.status().applied_index;
        snapshot_upto(dir.path(), index - 20).await;
        // 150 kB went through it. What stays is what came since the snapshot but one, and a spare.
        until(|| engine.status().disk_bytes < 60_000).await;
        let status = engine.status();
        assert!(status.used_bytes > 1000 && status.used_bytes <= status.disk_bytes, "{status:?}");
        until(|| files(&dir.path().join("snap")).len() == 1).await;
        let before = parts(&engine);
        engine.shutdown().await.unwrap();
        let engine = open(dir.path()).await;
        assert_eq!(parts(&engine), before);
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn a_lease_that_runs_out_takes_its_keys_along() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        // So long that a busy machine renews and puts in time.
        let ttl = Duration::from_secs(3);
        engine.propose(Command::LeaseGrant { id: lease(1), ttl_seconds: 3 }).await.unwrap();
        engine.propose(Command::LeaseGrant { id: lease(2), ttl_seconds: 600 }).await.unwrap();
        for key in ["one", "two"] {
            engine.propose(put_with_lease(key, lease(1))).await.unwrap();
        }
        let mut revisions = engine.revisions();
        let revision = *revisions.borrow_and_update();

        // It lives as long as it is renewed.
        let begin = Instant::now();
        let mut renewed = begin;
        while begin.elapsed() < ttl * 2 {
            let now = Instant::now();
            assert_eq!(engine.renew_lease(lease(1)).await.unwrap(), Some(3));
            renewed = now;
            tokio::time::sleep(ttl / 15).await;
        }
        assert_eq!(engine.read(Store::revision), revision);
        assert!(engine.lease_remaining(lease(1)).is_some_and(|left| left <= ttl));

        // Then all its keys go at once, and no sooner.
        tokio::time::timeout(PATIENCE, revisions.changed()).await.unwrap().unwrap();
        assert!(renewed.elapsed() >= ttl, "{:?}", renewed.elapsed());
        assert_eq!(*revisions.borrow(), revision + 1);
        assert_eq!(engine.read(|store| value(store, "one").or(value(store, "two"))), None);
        assert!(engine.read(|store| store.leases().eq([lease(2)])));
        assert_eq!(engine.renew_lease(lease(1)).await.unwrap(), None);
        assert_eq!(engine.lease_remaining(lease(1)), None);
        assert!(engine.lease_remaining(lease(2)).is_some());
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn an_expired_lease_is_told_so_when_its_keys_are_gone() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        engine.propose(Command::LeaseGrant { id: lease(1), ttl_seconds: 3 }).await.unwrap();
        engine.propose(put_with_lease("leased", lease(1))).await.unwrap();
        // Just before it runs out, and over and over from then on.
        until(|| engine.lease_remaining(lease(1)).is_none_or(|left| left < Duration::from_millis(5))).await;
        until(|| engine.lease_remaining(lease(1)).is_none_or(|left| left.is_zero())).await;
        assert_eq!(engine.renew_lease(lease(1)).await.unwrap(), None);
        assert_eq!(engine.read(|store| value(store, "leased")), None);
        assert_eq!(engine.renew_lease(lease(77)).await.unwrap(), None);
        engine.shutdown().await.unwrap();
    });
}

/// A member with a snapshot and a log behind it, shut down; and the snapshot.
async fn member_with_snapshot(dir: &Path) -> PathBuf {
    let engine = open(dir).await;
    for count in 0..60 {
        engine.propose(put(format!("key/{count}"), vec![b'x'; 200])).await.unwrap();
    }
    let snapshot = snapshot_upto(dir, 40).await;
    engine.shutdown().await.unwrap();
    // Another may have been under way.
    files(&dir.join("snap")).pop().unwrap_or(snapshot)
}

#[test]
fn a_damaged_snapshot_is_named() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = member_with_snapshot(dir.path()).await;
        let whole = fs::read(&snapshot).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&snapshot, flipped).unwrap();
            let error = try_open(options(dir.path())).await.unwrap_err();
            assert!(matches!(&error, OpenError::Snapshot(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains(snapshot.to_str().unwrap()) && text.contains("restore"), "{text}");
        }
        for len in [0, 10, 16, 100, whole.len() - 1] {
            fs::write(&snapshot, &whole[..len]).unwrap();
            let error = try_open(options(dir.path())).await.unwrap_err();
            assert!(error.to_string().contains(snapshot.to_str().unwrap()), "{error}");
        }
        fs::write(&snapshot, [&whole[..], b"more"].concat()).unwrap();
        assert!(matches!(try_open(options(dir.path())).await.unwrap_err(), OpenError::Snapshot(_)));
        fs::write(&snapshot, &whole).unwrap();
        // A crash while the next one is written leaves this.
        fs::write(snapshot.with_file_name("00000000000000ff.tmp"), b"half").unwrap();
        let engine = open(dir.path()).await;
        assert_eq!(engine.read(Store::revision), 61);
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn a_missing_snapshot_and_a_missing_log_are_named() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = member_with_snapshot(dir.path()).await;
        let aside = dir.path().join("aside");
        fs::rename(&snapshot, &aside).unwrap();
        let error = try_open(options(dir.path())).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::SnapshotLost { path, .. } if *path == dir.path().join("snap")),
            "{error}"
        );
        fs::rename(&aside, &snapshot).unwrap();

        let wal = dir.path().join("wal");
        fs::rename(&wal, &aside).unwrap();
        // And again, with the empty log that the first try made.
        for _ in 0..2 {
            let error = try_open(options(dir.path())).await.unwrap_err();
            assert!(matches!(&error, OpenError::LogLost { path } if *path == wal), "{error}");
        }
        let other = tempfile::tempdir().unwrap();
        open(other.path()).await.shutdown().await.unwrap();
        fs::remove_dir_all(&wal).unwrap();
        fs::rename(other.path().join("wal"), &wal).unwrap();
        let error = try_open(options(dir.path())).await.unwrap_err();
        assert!(matches!(&error, OpenError::ForeignSnapshot { path, .. } if *path == snapshot), "{error}");
        fs::remove_dir_all(&wal).unwrap();
        fs::rename(&aside, &wal).unwrap();
        let engine = open(dir.path()).await;
        assert_eq!(engine.read(Store::revision), 61);
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn a_damaged_log_is_named() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        member_with_snapshot(dir.path()).await;
        let segments = files(&dir.path().join("wal"));
        let segment = segments.iter().find(|path| !path.to_str().unwrap().contains("spare")).unwrap();
        let segment = if segment.extension().is_some() { segment.clone() } else { segments[1].clone() };
        let mut bytes = fs::read(&segment).unwrap();
        bytes[200] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let error = try_open(options(dir.path())).await.unwrap_err();
        assert!(error.to_string().contains(segment.to_str().unwrap()), "{error}");
    });
}

#[test]
fn two_engines_do_not_share_a_folder() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        let error = Engine::open(options(dir.path())).await.unwrap_err();
        assert!(matches!(error, OpenError::Wal(WalError::InUse { .. })), "{error}");
        engine.propose(put("still", "there")).await.unwrap();
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn wrong_settings_are_named() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let wrong = [
            EngineOptions { snapshot_entries: 0, ..options(dir.path()) },
            EngineOptions { heartbeat: Duration::ZERO, ..options(dir.path()) },
            EngineOptions { heartbeat: Duration::from_secs(1), ..options(dir.path()) },
        ];
        for options in wrong {
            let error = Engine::open(options).await.unwrap_err();
            assert!(matches!(error, OpenError::Options { .. }), "{error}");
        }
        assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
    });
}

#[test]
fn a_stopped_engine_says_so() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        engine.propose(Command::LeaseGrant { id: lease(1), ttl_seconds: 60 }).await.unwrap();
        let other = engine.clone();
        engine.shutdown().await.unwrap();
        assert_eq!(other.propose(put("key", "")).await, Err(ProposeError::Stopped));
        assert_eq!(other.read_barrier().await, Err(ReadError::Stopped));
        assert_eq!(other.renew_lease(lease(1)).await, Err(ReadError::Stopped));
        assert_eq!(other.ended().await, None);
        assert_eq!(other.read(Store::revision), 1);
        other.shutdown().await.unwrap();
    });
}

#[test]
fn a_disk_that_fails_ends_the_store_and_says_why() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).await;
        // The next segment cannot be made.
        let wal = dir.path().join("wal");
        fs::remove_dir_all(&wal).unwrap();
        let error = loop {
            if let Err(error) = engine.propose(put("key", vec![b'x'; 1000])).await {
                break error;
            }
        };
        assert!(error.may_be_carried_out());
        let ProposeError::Io { reason } = &error else { panic!("{error}") };
        assert!(reason.contains(wal.to_str().unwrap()), "{reason}");
        assert_eq!(engine.propose(put("key", "")).await, Err(error.clone()));
        assert!(matches!(engine.read_barrier().await, Err(ReadError::Io { .. })));
        assert_eq!(engine.ended().await.as_ref(), Some(reason));
        assert!(!engine.has_leader());
        engine.shutdown().await.unwrap();
    });
}

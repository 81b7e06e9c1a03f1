//! Care for a member: alarms, its quota, and backups that become new clusters.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::path::Path;
use std::process;
use std::time::Duration;

use bytes::Bytes;
use landbridge_kvstore_server::backup::{BackupError, RestoreOptions, read_backup, restore};
use landbridge_kvstore_server::engine::{
    Alarm, AlarmKind, ClusterOptions, Command, Engine, EngineOptions, Outcome, ProposeError,
};
use landbridge_kvstore_server::wal::WalOptions;
use landbridge_kvstore_store::{
    DeleteRequest, KeyRange, LeaseId, PutRequest, RangeError, RangeRequest, Store, StoreError, StorePart,
};
use sha2::{Digest, Sha256};

fn options(dir: &Path) -> EngineOptions {
    EngineOptions {
        wal: WalOptions { segment_bytes: 64 << 10, spares: 1 },
        snapshot_entries: 20,
        election_timeout: Duration::from_millis(200),
        heartbeat: Duration::from_millis(50),
        ..EngineOptions::new(dir)
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

fn value(store: &Store, key: &str) -> Option<Vec<u8>> {
    let range = KeyRange::Single(Bytes::copy_from_slice(key.as_bytes()));
    store.range(&RangeRequest::new(range)).unwrap().kvs.first().map(|kv| kv.value().to_vec())
}

fn parts(engine: &Engine) -> Vec<StorePart> {
    engine.read(|store| store.parts().collect())
}

async fn outcome(engine: &Engine, command: Command) -> Result<Outcome, StoreError> {
    engine.propose(command).await.unwrap().outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_refuses_what_etcd_refuses_and_lasts_until_it_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path())).await.unwrap();
    outcome(&engine, put("k", "v")).await.unwrap();
    let alarm = Alarm { kind: AlarmKind::NoSpace, member_id: engine.status().member_id };
    let raise = Command::Alarm { alarm, raised: true };
    assert_eq!(outcome(&engine, raise.clone()).await, Ok(Outcome::Alarm(true)));
    // Through snapshots and a restart.
    for _ in 0..30 {
        assert_eq!(outcome(&engine, put("k", "w")).await, Err(StoreError::NoSpace));
    }
    engine.shutdown().await.unwrap();
    let engine = Engine::open(options(dir.path())).await.unwrap();
    assert_eq!(engine.alarms(), [alarm]);
    let grant = Command::LeaseGrant { id: LeaseId::new(5).unwrap(), ttl_seconds: 9 };
    assert_eq!(outcome(&engine, grant).await, Err(StoreError::NoSpace));
    assert_eq!(engine.read(|store| value(store, "k")), Some(b"v".to_vec()));
    let delete = DeleteRequest { range: KeyRange::Single("k".into()), prev_kv: false };
    outcome(&engine, Command::DeleteRange(delete)).await.unwrap();

    let corrupt = Alarm { kind: AlarmKind::Corrupt, member_id: 3 };
    outcome(&engine, Command::Alarm { alarm: corrupt, raised: true }).await.unwrap();
    assert_eq!(outcome(&engine, Command::Compact { revision: 2 }).await, Err(StoreError::Corrupt));
    for alarm in [corrupt, alarm] {
        assert_eq!(outcome(&engine, Command::Alarm { alarm, raised: false }).await, Ok(Outcome::Alarm(true)));
    }
    assert_eq!(outcome(&engine, Command::Alarm { alarm, raised: false }).await, Ok(Outcome::Alarm(false)));
    outcome(&engine, put("k", "again")).await.unwrap();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_over_its_quota_takes_no_more_until_there_is_room_and_the_alarm_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(EngineOptions { quota_bytes: 50_000, ..options(dir.path()) }).await.unwrap();
    let mut puts = 0;
    let refused = loop {
        match engine.propose(put(format!("key {puts}"), vec![1; 1_000])).await {
            Ok(applied) => applied.outcome.unwrap(),
            Err(refused) => break refused,
        };
        puts += 1;
        assert!(puts < 60, "{}", engine.read(Store::size_bytes));
    };
    assert_eq!(refused, ProposeError::NoSpace);
    assert!(!refused.may_be_carried_out());
    while engine.alarms().is_empty() {
        tokio::task::yield_now().await;
    }
    let alarm = Alarm { kind: AlarmKind::NoSpace, member_id: engine.status().member_id };
    assert_eq!(engine.alarms(), [alarm]);
    let all = DeleteRequest { range: KeyRange::From("\0".into()), prev_kv: false };
    outcome(&engine, Command::DeleteRange(all)).await.unwrap();
    let revision = engine.read(Store::revision);
    outcome(&engine, Command::Compact { revision }).await.unwrap();
    while engine.read(Store::size_bytes) > 10_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(outcome(&engine, put("x", "y")).await, Err(StoreError::NoSpace));
    outcome(&engine, Command::Alarm { alarm, raised: false }).await.unwrap();
    outcome(&engine, put("x", "y")).await.unwrap();
    engine.shutdown().await.unwrap();
}

fn restored(dir: &Path) -> RestoreOptions {
    RestoreOptions {
        data_dir: dir.to_owned(),
        name: "default".to_owned(),
        cluster: ClusterOptions::default(),
        advertise: vec!["http://localhost:2380".to_owned()],
        bump_revision: 0,
        mark_compacted: false,
        wal: WalOptions { segment_bytes: 64 << 10, spares: 1 },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_becomes_a_cluster_with_the_same_keys_and_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(&dir.path().join("one"))).await.unwrap();
    let lease = LeaseId::new(77).unwrap();
    outcome(&engine, Command::LeaseGrant { id: lease, ttl_seconds: 1_000 }).await.unwrap();
    for number in 0..100 {
        let key = format!("key {}", number % 40);
        let request = PutRequest { key: key.into(), value: vec![7; number].into(), ..PutRequest::default() };
        let lease = (number % 3 == 0).then_some(lease);
        outcome(&engine, Command::Put(PutRequest { lease, ..request })).await.unwrap();
    }
    outcome(&engine, Command::Compact { revision: 50 }).await.unwrap();
    let delete = DeleteRequest { range: KeyRange::Single("key 7".into()), prev_kv: false };
    outcome(&engine, Command::DeleteRange(delete)).await.unwrap();
    let before = parts(&engine);
    let cluster_id = engine.status().cluster_id;

    let copy = engine.backup();
    outcome(&engine, put("later", "is not in it")).await.unwrap();
    let mut bytes = Vec::new();
    copy.write(&mut bytes).unwrap();
    engine.shutdown().await.unwrap();
    assert_eq!(bytes.len() as u64, copy.size_bytes().unwrap());
    assert_eq!(bytes.len() % 512, 32);
    let (data, hash) = bytes.split_at(bytes.len() - 32);
    assert_eq!(Sha256::digest(data)[..], *hash);

    let path = dir.path().join("backup.db");
    fs::write(&path, &bytes).unwrap();
    let backup = read_backup(&path).unwrap();
    assert_eq!((backup.revision, backup.keys, backup.cluster_id), (102, 39, cluster_id));
    assert_eq!(backup.compacted_revision, 50);

    let two = dir.path().join("two");
    restore(&backup, &restored(&two)).unwrap();
    assert!(matches!(restore(&backup, &restored(&two)), Err(BackupError::Exists { .. })));
    for _ in 0..2 {
        let engine = Engine::open(options(&two)).await.unwrap();
        assert_eq!(parts(&engine)[..], before);
        assert_ne!(engine.status().cluster_id, cluster_id);
        engine.shutdown().await.unwrap();
    }
    let engine = Engine::open(options(&two)).await.unwrap();
    outcome(&engine, put("next", "v")).await.unwrap();
    assert_eq!(engine.read(Store::revision), 103);
    engine.shutdown().await.unwrap();

    // Raised, so that whoever knows the old cluster's revisions lists again.
    let three = dir.path().join("three");
    let raised = RestoreOptions { bump_revision: 1_000, mark_compacted: true, ..restored(&three) };
    restore(&backup, &raised).unwrap();
    let engine = Engine::open(options(&three)).await.unwrap();
    assert_eq!(engine.status().cluster_id, cluster_id);
    assert_eq!(engine.read(|store| (store.revision(), store.compacted_revision())), (1_102, 1_102));
    assert_eq!(engine.read(|store| value(store, "key 19")), Some(vec![7; 99]));
    let old = RangeRequest { revision: 102, ..RangeRequest::new(KeyRange::Single("key 19".into())) };
    assert_eq!(engine.read(|store| store.range(&old).err()), Some(RangeError::Compacted.into()));
    outcome(&engine, put("next", "v")).await.unwrap();
    assert_eq!(engine.read(Store::revision), 1_103);
    engine.shutdown().await.unwrap();
    let engine = Engine::open(options(&three)).await.unwrap();
    assert_eq!(engine.read(Store::revision), 1_103);
    engine.shutdown().await.unwrap();
    let half = RestoreOptions { bump_revision: 5, ..restored(&dir.path().join("four")) };
    assert!(matches!(restore(&backup, &half), Err(BackupError::Options { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_changed_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(&dir.path().join("one"))).await.unwrap();
    outcome(&engine, put("k", vec![3; 700])).await.unwrap();
    let mut bytes = Vec::new();
    engine.backup().write(&mut bytes).unwrap();
    engine.shutdown().await.unwrap();
    let path = dir.path().join("backup.db");
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(matches!(read_backup(&path), Err(BackupError::Checksum { .. })), "{at}");
        // With a checksum to match, whatever is in it: an error or a store, and nothing else.
        let end = changed.len() - 32;
        let hash = Sha256::digest(&changed[..end]);
        changed[end..].copy_from_slice(&hash);
        fs::write(&path, &changed).unwrap();
        drop(read_backup(&path));
    }
    for len in [0, 31, 32, 511, 544, bytes.len() - 512] {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(read_backup(&path).is_err(), "{len}");
    }
}

/// Names the empty folder that a second run of a test, in namespaces of its own, makes a small disk of.
const SMALL_DISK: &str = "LANDBRIDGE_TEST_SMALL_DISK";

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing_and_room_brings_it_back() {
    if let Ok(dir) = env::var(SMALL_DISK) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(fill_a_disk(Path::new(&dir)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_full_disk_refuses_writes_and_loses_nothing_and_room_brings_it_back";
    let script = "mount -t tmpfs -o size=6m none \"$LANDBRIDGE_TEST_SMALL_DISK\" && exec \"$0\" --exact \"$1\" --nocapture";
    let mut command = process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    let run =
        command.arg(env::current_exe().unwrap()).arg(test).env(SMALL_DISK, dir.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    assert!(said.contains("the disk was full"), "{said}");
}

async fn fill_a_disk(dir: &Path) {
    let data = dir.join("data");
    let options = EngineOptions { snapshot_entries: 1_000_000, ..options(&data) };
    let engine = Engine::open(options.clone()).await.unwrap();
    // Something else takes the room, but for a little.
    let ballast = dir.join("ballast");
    let mut taken = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut taken, &[1; 4096]).is_ok() {}
    let mut written = 0;
    let refused = loop {
        match engine.propose(put(format!("key {written}"), vec![5; 1_000])).await {
            Ok(applied) => applied.outcome.unwrap(),
            Err(refused) => break refused,
        };
        written += 1;
        assert!(written < 5_000);
    };
    assert_eq!(refused, ProposeError::NoSpace);
    println!("the disk was full after {written} puts");
    // Reads go on, those that ask the leader as well.
    engine.read_barrier().await.unwrap();
    let last = format!("key {}", written - 1);
    assert_eq!(engine.read(|store| value(store, &last)), Some(vec![5; 1_000]));
    assert_eq!(engine.propose(put("k", "v")).await, Err(ProposeError::NoSpace));
    // Nobody has to do anything but make room.
    fs::remove_file(&ballast).unwrap();
    drop(taken);
    while engine.propose(put("after", "v")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for number in 0..500 {
        outcome(&engine, put(format!("later {number}"), vec![6; 1_000])).await.unwrap();
    }
    let before = parts(&engine);
    engine.shutdown().await.unwrap();
    let engine = Engine::open(options).await.unwrap();
    assert_eq!(parts(&engine), before);
    engine.shutdown().await.unwrap();
}

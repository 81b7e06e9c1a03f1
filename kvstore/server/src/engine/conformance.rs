//! openraft's own suite for storage, on ours; and after each of its tests the disk is asked for what memory had.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::StorageError;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::EngineOptions;
use super::log::{LogStore, Replay, SharedLog};
use super::open::{Found, Surroundings, recover_data};
use super::state_machine::{Folder, Shared, Snapshots, StateMachine};
use super::types::TypeConfig;
use crate::platform::Platform;
use crate::wal::disk::RealDisk;
use crate::wal::{self, Making, Wal, WalOptions};

const WAL: WalOptions = WalOptions { segment_bytes: 16 << 10, spares: 1 };

struct Builder;

/// Outlives the log of a test.
struct Disk {
    dir: TempDir,
    log: SharedLog,
    writer: Option<JoinHandle<Wal>>,
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        drop(self.writer.take().unwrap().join().unwrap());
        // The suite has logs whose first entry is the second; with openraft's, that one is lost, and the log is refused.
        let first = self.log.lock().first_index();
        if self.log.lock().purged.map_or(0, |purged| purged.index + 1) != first {
            return;
        }
        let (_wal, recovery) = Wal::open(&self.dir.path().join("wal"), WAL, b"").unwrap();
        let mut replay = Replay::default();
        for frame in &recovery.frames {
            replay.frame(frame.number, &frame.payload, None);
        }
        let (disk, _) = replay.finish(&recovery.prologue.unwrap()).unwrap().into_parts();
        let memory = self.log.lock();
        assert_eq!(disk.read(..).unwrap(), memory.read(..).unwrap());
        assert_eq!((disk.purged, disk.vote), (memory.purged, memory.vote));
    }
}

fn options(dir: PathBuf) -> EngineOptions {
    EngineOptions { wal: WAL, ..EngineOptions::new(dir) }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Disk> for Builder {
    async fn build(&self) -> Result<(Disk, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path().to_owned());
        let surroundings = Surroundings::default();
        let disk: Arc<dyn wal::disk::Disk> = Arc::new(RealDisk);
        let found = recover_data(&options, &disk, Making::Ahead, &surroundings);
        let Found { identity, mut log, writer, queue, state, snapshot, .. } = found.unwrap();
        assert!(snapshot.is_none());
        let shared_log = log.get_log_reader().await;
        let writer = Some(std::thread::spawn(move || writer.run(queue)));
        let snapshots = Snapshots {
            platform: Platform::default(),
            dir: dir.path().join("snap"),
            cluster_id: identity.cluster_id,
            current: Arc::default(),
            folder: Folder::default(),
            newest: tokio::sync::watch::Sender::new(0),
            counters: surroundings.counters,
            stop: surroundings.stop,
        };
        let token_ttl = std::time::Duration::from_secs(1);
        let shared =
            Shared::new(state, identity.member_id, 1, token_ttl, &Platform::default().clock, Arc::default());
        let state_machine = StateMachine { shared: Arc::new(shared), snapshots };
        Ok((Disk { dir, log: shared_log, writer }, log, state_machine))
    }
}

#[test]
fn log_and_state_machine_keep_openrafts_rules() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}

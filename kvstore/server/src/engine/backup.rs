//! Backups: the whole store in one file that etcdctl writes, and new clusters that begin with one.
//!
//! ```text
//! Engine::backup ─► snapshot file │ zeros up to a multiple of 512 │ SHA-256 of all that ─► etcdctl snapshot save
//! read_backup ─► Backup ─► restore ─► data folder of a member of a new cluster: a snapshot, and a log that goes on from it
//! ```
//!
//! Invariants:
//! - A backup is of one revision, and writers do not wait for it.
//! - A restored cluster has an ID of its own, since its past is another one than its clients may know; unless no client can
//!   go on from what it knew, since the revisions are raised and everything before is compacted.
//! - All members that are restored from one backup with the same options begin with the same state.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use landbridge_kvstore_store::{
    BuildError, Event, KeyRange, KeyValue, RangeRequest, Store, StoreBuilder, StorePart,
};
use sha2::{Digest, Sha256};

use super::alarms::Alarms;
use super::codec::{Durable, encode_prologue};
use super::identity::{Identity, member_id};
use super::members::Members;
use super::snapshot::{self, SnapshotError};
use super::state_machine::State;
use super::types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote};
use super::{ClusterOptions, Engine, InitialMember};
use crate::wal::disk::{Access, Disk, RealDisk, create_dirs};
use crate::wal::{Making, Wal, WalError, WalOptions};

/// What etcdctl demands of the length without the checksum.
const MULTIPLE: u64 = 512;
/// Bytes of the checksum at the end.
pub const HASH_BYTES: u64 = 32;
/// A restored log begins behind this entry.
const FIRST: (u64, u64) = (1, 1);

/// Why a backup cannot be read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is not as long as a backup, or its checksum is of something else.
    #[error("{path} is no backup, or was not copied whole: take another one")]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// What is in it makes no sense.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// There is something where the restored data was to be.
    #[error("{path} is there already: name a folder that is not, or is empty")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The options do not fit each other.
    #[error("the options of the restore do not fit: {reason}")]
    Options {
        /// Why.
        reason: String,
    },
    /// The revisions cannot be raised.
    #[error("the revisions of the backup cannot be raised")]
    Bump(#[from] BuildError),
    /// The log of the restored member cannot be written.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A call to the kernel failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl BackupError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// The store at one revision, to be written out.
#[derive(Clone, Debug)]
pub struct Copy {
    state: Arc<State>,
    cluster_id: u64,
}

impl Engine {
    /// The store as it is now. Costs nothing, whatever its size.
    pub fn backup(&self) -> Copy {
        let state = Arc::new(self.0.shared.state().clone());
        Copy { state, cluster_id: self.0.identity.cluster_id }
    }
}

impl Copy {
    /// The revision that it is of.
    pub fn revision(&self) -> i64 {
        self.state.store.revision()
    }

    /// How many bytes [`Self::write`] writes. Blocks: takes as long as writing to memory.
    ///
    /// # Errors
    /// None but that a part of the store is too large to be written at all.
    pub fn size_bytes(&self) -> io::Result<u64> {
        let mut counted = Counted(0);
        self.write_parts(&mut counted)?;
        Ok(counted.0.next_multiple_of(MULTIPLE) + HASH_BYTES)
    }

    /// Writes the backup. Blocks.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut hashed = Hashed { out, hasher: Sha256::new(), len: 0 };
        self.write_parts(&mut hashed)?;
        let zeros = hashed.len.next_multiple_of(MULTIPLE) - hashed.len;
        hashed.write_all(&[0; 512][..usize::try_from(zeros).unwrap_or(0)])?;
        let hash: [u8; 32] = hashed.hasher.finalize().into();
        out.write_all(&hash)
    }

    fn write_parts(&self, out: &mut dyn Write) -> io::Result<()> {
        snapshot::write_to(out, self.cluster_id, &self.state.meta(), &self.state)
    }
}

struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
    len: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A backup that was read: whole, and all its checksums fit.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The revision of the store.
    pub revision: i64,
    /// The revision that it is compacted to, 0 if it is not.
    pub compacted_revision: i64,
    /// Keys that are there at that revision.
    pub keys: u64,
    /// The cluster that it was taken from.
    pub cluster_id: u64,
    /// The length of the file.
    pub size_bytes: u64,
    /// The checksum that the file ends with.
    pub hash: [u8; 32],
    state: State,
}

impl Backup {
    /// The store.
    pub fn store(&self) -> &Store {
        &self.state.store
    }
}

/// Reads a backup, and checks all of it. Blocks.
///
/// # Errors
/// [`BackupError`].
pub fn read_backup(path: &Path) -> Result<Backup, BackupError> {
    read_backup_on(&RealDisk, path)
}

/// [`read_backup`] on any disk.
pub(super) fn read_backup_on(disk: &dyn Disk, path: &Path) -> Result<Backup, BackupError> {
    let file = disk.open(path, Access::Read).map_err(BackupError::io("open", path))?;
    let size_bytes = file.len().map_err(BackupError::io("look at", path))?;
    let damaged = || BackupError::Checksum { path: path.to_owned() };
    if size_bytes % MULTIPLE != HASH_BYTES {
        return Err(damaged());
    }
    let data = size_bytes - HASH_BYTES;
    let (mut hasher, mut at, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 18]);
    while at < data {
        let room = usize::try_from(data - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read_at(&mut buffer[..room], at).map_err(BackupError::io("read", path))?;
        if read == 0 {
            return Err(damaged());
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    let mut hash = [0; 32];
    let read = file.read_at(&mut hash, data).map_err(BackupError::io("read", path))?;
    if read != hash.len() || <[u8; 32]>::from(hasher.finalize()) != hash {
        return Err(damaged());
    }
    let loaded = snapshot::read_padded(path, &*file, data, MULTIPLE)?;
    let store = &loaded.state.store;
    let all =
        RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::From(Bytes::from_static(b"\0"))) };
    // The lowest key that there can be. What is current can be read.
    let keys = store.range(&all).map_or(0, |found| u64::try_from(found.count).unwrap_or(0));
    Ok(Backup {
        revision: store.revision(),
        compacted_revision: store.compacted_revision(),
        keys,
        cluster_id: loaded.cluster_id,
        size_bytes,
        hash,
        state: loaded.state,
    })
}

/// Whether a version is what its key is now.
fn is_current(store: &Store, event: &Event) -> bool {
    let Some(kv) = event.put() else { return false };
    let range = RangeRequest::new(KeyRange::Single(Bytes::copy_from_slice(kv.key())));
    let found = store.range(&range).ok().and_then(|found| found.kvs.first().map(KeyValue::mod_revision));
    found == Some(kv.mod_revision())
}

/// The member that a backup is restored to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Where its files will be. Must not be there, or be empty.
    pub data_dir: PathBuf,
    /// Its name.
    pub name: String,
    /// The new cluster; alone, if it names no members.
    pub cluster: ClusterOptions,
    /// The URLs by which the others will reach it.
    pub advertise: Vec<String>,
    /// By how much revisions are raised, so that no client meets one that it knows already; etcd's `--bump-revision`.
    pub bump_revision: u64,
    /// Whether everything before is compacted, so that whoever watches lists again; etcd's `--mark-compacted`. Only together
    /// with `bump_revision`; the cluster keeps its ID then.
    pub mark_compacted: bool,
    /// Settings of the log.
    pub wal: WalOptions,
}

impl RestoreOptions {
    /// The new cluster: who this member is in it, and all that are.
    ///
    /// Members that are restored together come to the same without asking each other. The backup is part of the cluster's
    /// ID, so that it is not that of the cluster that it was taken from, even with the same token and members.
    fn founded(&self, hash: [u8; 32]) -> Result<(Identity, BTreeMap<u64, Member>), BackupError> {
        let ClusterOptions { initial, token, .. } = &self.cluster;
        let mut members = BTreeMap::new();
        for InitialMember { name, peer_urls } in initial {
            let (id, name, peer_urls) = (member_id(token, peer_urls, 0), name.clone(), peer_urls.clone());
            members.insert(id, Member { name, peer_urls, is_learner: false });
        }
        if members.len() != initial.len() {
            return Err(wrong("two members of the new cluster have the same URLs".to_owned()));
        }
        if initial.is_empty() {
            let identity = Identity::alone(token, &self.advertise, fastrand::u64(..));
            let (name, peer_urls) = (self.name.clone(), self.advertise.clone());
            members.insert(identity.member_id, Member { name, peer_urls, is_learner: false });
            return Ok((identity, members));
        }
        let mut identity = Identity::of_cluster(token, initial, &self.advertise);
        let own = members.get(&identity.member_id).filter(|own| own.name == self.name);
        own.ok_or_else(|| {
            wrong(format!("the new cluster has no member {} that advertises {:?}", self.name, self.advertise))
        })?;
        let [first, ..] = hash.as_chunks::<8>().0 else { return Ok((identity, members)) };
        identity.cluster_id = (identity.cluster_id ^ u64::from_be_bytes(*first)).max(1);
        Ok((identity, members))
    }
}

fn wrong(reason: String) -> BackupError {
    BackupError::Options { reason }
}

/// Makes the data folder of a member that begins with a backup. Keys keep their revisions; the cluster and its members are
/// new. Every member of the cluster has to be restored, from the same backup with the same options. Blocks.
///
/// # Errors
/// [`BackupError`].
pub fn restore(backup: &Backup, options: &RestoreOptions) -> Result<(), BackupError> {
    restore_on(Arc::new(RealDisk), backup, options)
}

/// [`restore`] on any disk.
pub(super) fn restore_on(
    disk: Arc<dyn Disk>,
    backup: &Backup,
    options: &RestoreOptions,
) -> Result<(), BackupError> {
    let RestoreOptions { data_dir, bump_revision, mark_compacted, .. } = options;
    if *mark_compacted != (*bump_revision > 0) {
        let reason = "revisions are raised and marked as compacted together, or neither".to_owned();
        return Err(BackupError::Options { reason });
    }
    let is_there = disk.is_dir(data_dir);
    if is_there && !disk.list(data_dir).map_err(BackupError::io("read", data_dir))?.is_empty() {
        return Err(BackupError::Exists { path: data_dir.clone() });
    }
    let store = if *mark_compacted {
        bumped(&backup.state.store, *bump_revision)?
    } else {
        backup.state.store.clone()
    };
    let (mut identity, founders) = options.founded(backup.hash)?;
    if *mark_compacted {
        identity.cluster_id = backup.cluster_id;
    }
    let last = LogId::new_term_index(FIRST.0, FIRST.1);
    let voters = founders.keys().copied().collect();
    let membership = Membership::new(vec![voters], founders).map_err(|error| wrong(error.to_string()))?;
    let membership = StoredMembership::new(Some(last), membership);
    // Alarms were about the old members.
    let auth = Arc::clone(&backup.state.auth);
    let (alarms, members) = (Alarms::default(), Members::default());
    let state = State { store, auth, alarms, members, last_applied: Some(last), membership };

    let snapshots = data_dir.join("snap");
    create_dirs(&*disk, &snapshots).map_err(BackupError::io("create", &snapshots))?;
    let meta: SnapshotMeta = state.meta();
    snapshot::write(&*disk, &snapshots, identity.cluster_id, &meta, &state)?;
    // Whoever has applied an entry has voted in its term.
    let vote = Some(Vote::new(FIRST.0, identity.member_id));
    let durable = Durable { vote, purged: Some(last), committed: Some(last) };
    let prologue = encode_prologue(identity, &durable);
    // Last: without its log, a folder is refused.
    Wal::open_on(disk, &data_dir.join("wal"), options.wal, Making::WhenNeeded, &prologue, &mut |_, _| {})?;
    Ok(())
}

/// A store whose next revision is above all that clients may know, and that remembers nothing of how it came to be.
fn bumped(store: &Store, by: u64) -> Result<Store, BackupError> {
    let too_much = || BackupError::Options { reason: format!("revisions cannot be raised by {by}") };
    let by = i64::try_from(by).map_err(|_| too_much())?;
    let raised = store.revision().checked_add(by).ok_or_else(too_much)?;
    let mut builder = StoreBuilder::new();
    for part in store.parts() {
        let part = match part {
            StorePart::Beginning { .. } => StorePart::Beginning { compacted: raised, revision: raised },
            StorePart::Version(event) if !is_current(store, &event) => continue,
            part => part,
        };
        builder.add(part)?;
    }
    Ok(builder.finish()?)
}

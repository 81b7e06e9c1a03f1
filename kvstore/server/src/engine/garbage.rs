//! Bytes that a disk or another member could come with: no panic, no more memory than they are worth, and damage is named.
//!
//! Changes are made by seeded dice, to files as they are, and to what is inside of their checksums.
//! `LANDBRIDGE_GARBAGE_SEEDS` says how many seeds each of the tests takes, `LANDBRIDGE_GARBAGE_FIRST_SEED` which is the first.

use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use landbridge_kvstore_store::auth::{AuthChange, AuthCommand};
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, PutRequest, RangeRequest,
    Store, TxnRequest,
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::backup::read_backup_on;
use super::batch::Batch;
use super::codec::{self, Durable, Record, encode_prologue, encode_record, proto};
use super::crash_points::{entry, recovered, workload};
use super::identity::Identity;
use super::log::Replay;
use super::state_machine::State;
use super::types::{Entry, LogId, Payload, Proposal, Vote};
use super::{Alarm, AlarmKind, Command, snapshot};
use crate::error_chain::chain;
use crate::wal::disk::memory::MemoryDisk;
use crate::wal::disk::{Access, Disk, read_all};

/// Memory that a test may take beyond what it has: much more than all of its input.
const MEMORY_BYTES: u64 = 256 << 20;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn seeds() -> Range<u64> {
    let first = number("LANDBRIDGE_GARBAGE_FIRST_SEED", 1);
    first..first + number("LANDBRIDGE_GARBAGE_SEEDS", 2_000)
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Runs a test with all seeds, and tells with which it failed.
fn with_seeds(test: impl Fn(&mut fastrand::Rng)) {
    let before = peak();
    for seed in seeds() {
        let mut dice = fastrand::Rng::with_seed(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| test(&mut dice)));
        assert!(outcome.is_ok(), "seed {seed} (LANDBRIDGE_GARBAGE_FIRST_SEED={seed})");
    }
    let taken = peak() - before;
    assert!(taken < MEMORY_BYTES, "{taken} bytes of memory were taken");
}

/// Changes some bytes.
fn spoil(bytes: &mut Vec<u8>, dice: &mut fastrand::Rng) {
    for _ in 0..dice.u8(1..4) {
        let at = dice.usize(..=bytes.len());
        let len = dice.usize(..16).min(bytes.len() - at);
        match dice.u8(..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + len)),
            2 => {
                let more: Vec<u8> = (0..dice.usize(1..16)).map(|_| dice.u8(..)).collect();
                bytes.splice(at..at, more);
            }
            // The largest number that there is, as protobuf has it.
            3 => drop(bytes.splice(at..at + len, [0xff; 9].into_iter().chain([1]))),
            4 => bytes[at..at + len].fill(0),
            5 => {
                let copy = bytes[at..at + len].to_vec();
                let to = dice.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.u8(..8);
                }
            }
        }
    }
}

fn bytes_of(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    read_all(&*disk.open(path, Access::Read).unwrap()).unwrap()
}

fn replace(disk: &MemoryDisk, path: &Path, bytes: &[u8]) {
    disk.open(path, Access::Create).unwrap().write_all_at(bytes, 0).unwrap();
}

fn files(disk: &MemoryDisk) -> Vec<PathBuf> {
    let folders = ["/data/wal", "/data/snap"];
    folders.iter().flat_map(|folder| disk.list(Path::new(folder)).unwrap()).collect()
}

fn folder() -> MemoryDisk {
    let disk = MemoryDisk::default();
    assert!(workload(&disk).1);
    disk
}

#[test]
fn a_spoiled_file_is_named_or_what_is_read_was_written() {
    let whole = folder();
    let paths = files(&whole);
    assert!(paths.len() > 3, "{paths:?}");
    with_seeds(|dice| {
        let disk = whole.after_kill();
        let path = &paths[dice.usize(..paths.len())];
        let mut bytes = bytes_of(&disk, path);
        spoil(&mut bytes, dice);
        replace(&disk, path, &bytes);
        match recovered(&disk) {
            Ok(found) => {
                for found in found.log.memory().read(..).unwrap() {
                    assert_eq!(found, entry(found.log_id.index), "{}", path.display());
                }
            }
            Err(error) => assert!(chain(&error).contains("/data/"), "{}", chain(&error)),
        }
    });
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// One command of each kind.
fn commands() -> Vec<Command> {
    let lease = LeaseId::new(7).unwrap();
    let put = PutRequest { key: key("k"), value: key("value"), lease: Some(lease), ..PutRequest::default() };
    let delete = DeleteRequest { range: KeyRange::From(key("a")), prev_kv: true };
    let compare = Compare {
        range: KeyRange::Single(key("k")),
        operator: CompareOperator::Greater,
        target: CompareTarget::ModRevision(2),
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![Op::Put(put.clone()), Op::Range(RangeRequest::new(KeyRange::Single(key("k"))))],
        failure: vec![Op::Delete(delete.clone())],
    };
    vec![
        Command::LeaseGrant { id: lease, ttl_seconds: 60 },
        Command::Put(put),
        Command::Txn(txn),
        Command::Compact { revision: 2 },
        Command::DeleteRange(delete),
        Command::LeaseRevoke { id: lease, within: None },
        Command::Auth(AuthCommand { by: "root".to_owned(), change: AuthChange::Enable }),
        Command::MemberAttributes {
            member_id: 3,
            name: "one".to_owned(),
            client_urls: vec!["http://a:1".to_owned()],
        },
        Command::Alarm { alarm: Alarm { kind: AlarmKind::NoSpace, member_id: 3 }, raised: true },
    ]
}

/// Frames with one record of each kind, and the prologue.
fn frames() -> (Vec<Vec<u8>>, Vec<u8>) {
    let entries = commands()
        .into_iter()
        .map(|command| Payload::Normal(Proposal(Arc::new(Batch::unattended([command])))));
    let entries = [Payload::Blank].into_iter().chain(entries).zip(0u64..);
    let mut records: Vec<Record> = entries
        .map(|(payload, index)| Record::Entry(Entry { log_id: LogId::new_term_index(1, index), payload }))
        .collect();
    records.push(Record::Vote(Vote::new_committed(1, 3)));
    records.push(Record::TruncateAfter(Some(LogId::new_term_index(1, 8))));
    records.push(Record::Committed(LogId::new_term_index(1, 8)));
    let frame = |record: &Record| {
        let mut frame = Vec::new();
        encode_record(record, &mut frame);
        frame
    };
    let identity = Identity { cluster_id: 5, member_id: 3 };
    (records.iter().map(frame).collect(), encode_prologue(identity, &Durable::default()))
}

#[test]
fn records_that_make_no_sense_are_refused_or_applied() {
    let (frames, prologue) = frames();
    with_seeds(|dice| {
        let (mut frames, mut prologue) = (frames.clone(), prologue.clone());
        let place = dice.usize(..=frames.len());
        spoil(frames.get_mut(place).unwrap_or(&mut prologue), dice);
        let mut replay = Replay::default();
        for (number, frame) in (1..).zip(&frames) {
            replay.frame(number, frame, None);
        }
        let Ok(recovered) = replay.finish(&prologue) else { return };
        let (log, _) = recovered.into_parts();
        let mut state = State::default();
        for entry in log.read(..).unwrap() {
            state.apply(&entry, |_, _, _| {});
        }
        assert!(state.store.parts().count() > 0);
    });
}

/// The blocks of a snapshot.
fn blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut rest = &bytes[snapshot::HEADER_LEN..];
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap();
        blocks.push(after[4..4 + len].to_vec());
        rest = &after[4 + len..];
    }
    blocks
}

/// A snapshot of blocks, with right checksums.
fn joined(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = snapshot::header().to_vec();
    for (place, block) in (0..).zip(blocks) {
        bytes.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        bytes.extend(snapshot::checksum(place, block).to_le_bytes());
        bytes.extend(block);
    }
    bytes
}

#[test]
fn a_snapshot_that_makes_no_sense_is_refused_or_read_as_a_store() {
    let disk = folder();
    let path = disk.list(Path::new("/data/snap")).unwrap().remove(0);
    let whole = blocks(&bytes_of(&disk, &path));
    assert_eq!(joined(&whole), bytes_of(&disk, &path));
    with_seeds(|dice| {
        let mut blocks = whole.clone();
        let place = dice.usize(..blocks.len());
        match dice.u8(..8) {
            0 => drop(blocks.remove(place)),
            1 => blocks.push(blocks[place].clone()),
            _ => spoil(&mut blocks[place], dice),
        }
        let disk = MemoryDisk::default();
        replace(&disk, &path, &joined(&blocks));
        let file = disk.open(&path, Access::Read).unwrap();
        match snapshot::read(&path, &*file) {
            Ok(loaded) => {
                let store: Store = loaded.state.store;
                drop(store.range(&RangeRequest::new(KeyRange::From(key("\0")))));
                assert!(store.parts().count() > 0);
            }
            Err(error) => assert!(chain(&error).contains("/data/snap"), "{}", chain(&error)),
        }
    });
}

#[test]
fn a_backup_that_makes_no_sense_is_refused_or_read_as_a_store() {
    let disk = folder();
    let path = disk.list(Path::new("/data/snap")).unwrap().remove(0);
    let whole = bytes_of(&disk, &path);
    with_seeds(|dice| {
        let mut bytes = whole.clone();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let is_sealed = dice.bool();
        if is_sealed {
            spoil(&mut bytes, dice);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend(<[u8; 32]>::from(Sha256::digest(&bytes)));
        if !is_sealed {
            spoil(&mut bytes, dice);
        }
        let disk = MemoryDisk::default();
        replace(&disk, Path::new("/backup"), &bytes);
        match read_backup_on(&disk, Path::new("/backup")) {
            Ok(backup) => assert!(backup.store().parts().count() > 0),
            Err(error) => assert!(chain(&error).contains("/backup"), "{}", chain(&error)),
        }
    });
}

#[test]
fn messages_that_make_no_sense_are_refused_or_taken() {
    use codec::peer;
    let log_id = || Some(proto::LogId { term: 3, index: 9 });
    let vote = || Some(proto::Vote { term: 3, member_id: 8, committed: true });
    let batch = codec::batch_to_proto(&Batch::unattended(commands()));
    let entries =
        vec![proto::Entry { log_id: log_id(), payload: Some(proto::entry::Payload::Batch(batch.clone())) }];
    let append = proto::AppendRequest { vote: vote(), previous: log_id(), entries, committed: log_id() };
    let members = vec![proto::Member {
        id: 8,
        name: "one".to_owned(),
        peer_urls: vec!["http://a:1".to_owned()],
        is_learner: false,
    }];
    let membership = proto::Membership { voters: vec![proto::Voters { member_ids: vec![8] }], members };
    let meta = proto::SnapshotMeta {
        vote: vote(),
        last_log_id: log_id(),
        membership_log_id: log_id(),
        membership: Some(membership),
        length: 100,
    };
    let ask = proto::VoteRequest { vote: vote(), last_log_id: log_id(), leadership_transfer: true };
    let voted = proto::VoteResponse { vote: vote(), granted: true, last_log_id: log_id() };
    let transfer = proto::TransferLeaderRequest { from: vote(), to: 8, last_log_id: log_id() };
    with_seeds(|dice| {
        let mut spoiled = |bytes: Vec<u8>| {
            let mut bytes = bytes;
            spoil(&mut bytes, dice);
            bytes
        };
        if let Ok(message) = proto::AppendRequest::decode(&*spoiled(append.encode_to_vec())) {
            drop(peer::append_from_proto(message));
        }
        if let Ok(message) = proto::SnapshotMeta::decode(&*spoiled(meta.encode_to_vec())) {
            drop(peer::snapshot_meta_from_proto(message));
        }
        if let Ok(message) = proto::VoteRequest::decode(&*spoiled(ask.encode_to_vec())) {
            drop(peer::vote_request_from_proto(message));
        }
        if let Ok(message) = proto::VoteResponse::decode(&*spoiled(voted.encode_to_vec())) {
            drop(peer::vote_response_from_proto(message));
        }
        if let Ok(message) = proto::TransferLeaderRequest::decode(&*spoiled(transfer.encode_to_vec())) {
            drop(peer::transfer_from_proto(message));
        }
        if let Ok(message) = proto::Batch::decode(&*spoiled(batch.encode_to_vec())) {
            drop(codec::batch_from_proto(message));
        }
    });
}

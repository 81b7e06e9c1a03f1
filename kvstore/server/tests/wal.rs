//! The log on real files: what was acknowledged is there after a crash, and what is damaged is named.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::wal::{Place, Recovery, Wal, WalError, WalOptions};
use proptest::prelude::*;
use tempfile::TempDir;

/// Small, so that a few appends fill several segments.
const OPTIONS: WalOptions = WalOptions { segment_bytes: 512, spares: 1 };
/// Names the folder of the log that a second run of a test is to append to until it is killed.
const VICTIM: &str = "LANDBRIDGE_TEST_VICTIM_WAL";

/// Opens a log that no one uses. Another test that starts a process may hold a copy of the lock's descriptor for the
/// moment between its fork and its exec.
fn open(dir: &Path) -> (Wal, Recovery) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Wal::open(dir, OPTIONS, b"first") {
            Err(WalError::InUse { .. }) if Instant::now() < deadline => {}
            outcome => return outcome.unwrap(),
        }
    }
}

/// Opens a log that cannot be opened, and returns why.
fn refusal(dir: &Path) -> WalError {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Wal::open(dir, OPTIONS, b"") {
            Err(WalError::InUse { .. }) if Instant::now() < deadline => {}
            outcome => return outcome.unwrap_err(),
        }
    }
}

fn append(wal: &mut Wal, payload: &[u8]) -> u64 {
    wal.append(payload, || b"later".to_vec()).unwrap().number()
}

/// A log of ten frames over several segments, and its segments in order.
fn log_of_ten() -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for number in 0..10u8 {
        append(&mut wal, &[number; 100]);
    }
    drop(wal);
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).collect();
    segments.sort();
    assert!(segments.len() >= 3, "{segments:?}");
    (dir, segments)
}

fn payloads(recovery: &Recovery) -> Vec<u8> {
    recovery.frames.iter().map(|frame| frame.payload[0]).collect()
}

/// Changes one byte of a file, counted from its last byte that is not zero.
fn flip_from_end(path: &Path, back: usize) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - back] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Reopen,
    /// Of what there is, in hundredths.
    Release(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..700).prop_map(Step::Append),
        1 => Just(Step::Reopen),
        1 => (0u64..=100).prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_keeps_what_was_appended_until_it_is_released(steps in prop::collection::vec(any_step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut wal, recovery) = open(dir.path());
        prop_assert_eq!(recovery, Recovery::default());
        let mut appended: Vec<Vec<u8>> = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        let (mut released, mut ever_released) = (1, false);
        for step in steps.into_iter().chain([Step::Reopen]) {
            match step {
                Step::Append(payload) => {
                    appended.push(payload);
                    places.push(wal.append(appended.last().unwrap(), || b"later".to_vec()).unwrap());
                    prop_assert_eq!(places.last().unwrap().number(), appended.len() as u64);
                }
                Step::Release(hundredths) => {
                    released = released.max(wal.next_number() * hundredths / 100);
                    ever_released = true;
                    wal.release_before(released).unwrap();
                }
                Step::Reopen => {
                    drop(wal);
                    let (reopened, recovery) = open(dir.path());
                    wal = reopened;
                    prop_assert_eq!(recovery.torn_bytes, 0);
                    let first = recovery.frames.first().map_or(wal.next_number(), |frame| frame.number);
                    prop_assert!(first <= released.max(1), "{first} is the first, {released} was to stay");
                    let kept = &appended[usize::try_from(first).unwrap() - 1..];
                    prop_assert!(recovery.frames.iter().map(|frame| &frame.payload).eq(kept));
                    // The first segment stays until something is let go of.
                    let prologue: &[u8] = if ever_released { b"later" } else { b"first" };
                    prop_assert!(recovery.prologue.as_deref() == Some(prologue) || recovery.prologue.as_deref() == Some(b"first"));
                }
            }
        }
        // What was released may be gone from its place, and is never taken for something else.
        for (place, payload) in places.iter().zip(&appended) {
            match place.read() {
                Ok(read) => prop_assert_eq!(&read, payload),
                Err(error) => prop_assert!(place.number() < released, "{error}"),
            }
        }
        prop_assert_eq!(wal.next_number(), appended.len() as u64 + 1);
    }
}

#[test]
fn a_torn_last_frame_is_cut_off_and_the_log_goes_on() {
    const LARGE: WalOptions = WalOptions { segment_bytes: 16 << 10, spares: 1 };
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = Wal::open(dir.path(), LARGE, b"").unwrap();
    for number in 1..=3u8 {
        append(&mut wal, &[number; 3_000]);
    }
    drop(wal);
    let segment = dir.path().join("0000000000000001.wal");
    let whole = fs::read(&segment).unwrap();

    // One sector in the middle of the last frame did not reach the disk.
    let mut torn = whole.clone();
    torn[8_192..8_704].fill(0);
    fs::write(&segment, torn).unwrap();
    let (mut wal, recovery) = open(dir.path());
    assert_eq!(payloads(&recovery), [1, 2]);
    assert!(recovery.torn_bytes > 0);
    assert_eq!(append(&mut wal, &[77]), 3);
    drop(wal);
    let (wal, recovery) = open(dir.path());
    assert_eq!((payloads(&recovery), recovery.torn_bytes), (vec![1, 2, 77], 0));
    drop(wal);

    // All of its sectors did, and one of them rots.
    let mut rotten = whole;
    rotten[8_200] ^= 1;
    fs::write(&segment, rotten).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(&error, WalError::Damaged { path, .. } if *path == segment), "{error}");
}

#[test]
fn damage_before_the_last_frame_is_named_and_nothing_is_lost_silently() {
    // The last frame of a segment that has a successor, and the first of the last segment that has two.
    for (segment, back) in [(0, 30), (1, 200), (1, 30)] {
        let (dir, segments) = log_of_ten();
        flip_from_end(&segments[segment], back);
        let error = refusal(dir.path());
        assert!(matches!(&error, WalError::Damaged { path, .. } if *path == segments[segment]), "{error}");
        assert!(error.to_string().contains("restore"), "{error}");
    }
}

#[test]
fn a_damaged_header_and_a_missing_segment_are_named() {
    let (dir, segments) = log_of_ten();
    let mut bytes = fs::read(&segments[1]).unwrap();
    bytes[20] ^= 1;
    fs::write(&segments[1], &bytes).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(&error, WalError::Damaged { path, offset: 0 } if *path == segments[1]), "{error}");
    fs::remove_file(&segments[1]).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(&error, WalError::Missing { path } if *path == segments[1]), "{error}");
}

#[test]
fn two_processes_do_not_open_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let (_wal, _) = open(dir.path());
    let error = Wal::open(dir.path(), OPTIONS, b"second").unwrap_err();
    assert!(matches!(error, WalError::InUse { .. }), "{error}");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Ok(dir) = env::var(VICTIM) {
        let (mut wal, _) = open(Path::new(&dir));
        loop {
            let number = wal.next_number();
            append(&mut wal, &number.to_le_bytes());
            println!("acknowledged {number}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for _ in 0..5 {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "what_was_acknowledged_survives_a_kill", "--nocapture"])
            .env(VICTIM, dir.path());
        let mut victim = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        // The harness puts the test's name before the first line.
        let acknowledged =
            lines.filter_map(|line| line.unwrap().rsplit_once("acknowledged ")?.1.parse::<u64>().ok());
        expected = acknowledged.take(100).last().unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();
        let (_, recovery) = open(dir.path());
        assert!(recovery.frames.last().unwrap().number >= expected);
        for frame in &recovery.frames {
            assert_eq!(frame.payload, frame.number.to_le_bytes());
        }
    }
    assert!(expected >= 500);
}

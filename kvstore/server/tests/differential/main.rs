//! Long random sequences of operations, against ours and a real etcd: every answer has to be equal, field by field.
//!
//! ```text
//! seed ─► generator ─► operations ─► run ─┬─► ours ─┐
//!                                         └─► etcd ─┴─► allowed: evened out ─► equal? ─► coverage
//!                                                                               no ─► shrink ─► printed
//! ```
//!
//! `LANDBRIDGE_DIFF_SEEDS`, `LANDBRIDGE_DIFF_OPS` and `LANDBRIDGE_DIFF_FIRST_SEED` set how many seeds of how many operations
//! are run, and which is the first; `LANDBRIDGE_DIFF_CONCURRENT` how many at a time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allowed;
mod answer;
mod coverage;
mod expected;
mod generator;
mod line;
mod operation;
mod run;
mod shrink;
mod stores;
mod watching;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use landbridge_lab::requirement::{Requirement, etcd, met};
use tokio::task::JoinSet;

use crate::allowed::{ALLOWED_DIFFERENCES, NOT_DRAWN};
use crate::generator::Generator;
use crate::operation::Operation;
use crate::run::{Failure, Report, run};
use crate::shrink::shrink;

const SEEDS: u64 = 20;
const OPERATIONS: usize = 10_000;
/// How many operations there are for one where there are users, too: a second sequence of each seed.
const USERS_SHARE: usize = 4;
/// Seeds at a time. etcd looks at watches of the past every 100 ms only, which is time for others.
const CONCURRENT: usize = 10;
/// In how many seeds a difference may be seen that is not there when all of it is run anew: on a machine that stands still
/// for a second, one store gets a lease or a watch of the past done before the other.
const SEEN_ONCE: usize = 1;
/// How long a sequence that fails is made shorter.
const SHRINKING: Duration = Duration::from_mins(2);

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_answers_as_etcd_does() {
    compare(Generator::new, 1, |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_answers_each_user_as_etcd_does() {
    let is_of_users = |option: &str| option.starts_with("users: ") || option.starts_with("refused: ");
    compare(Generator::with_users, USERS_SHARE, is_of_users).await;
}

/// Runs the seeds, with so many times fewer operations than set. Every option that `has_to_be_seen` has to be drawn.
async fn compare(generator: fn(u64) -> Generator, share: usize, has_to_be_seen: fn(&str) -> bool) {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = etcd().unwrap();
    let (seeds, length) =
        (setting("LANDBRIDGE_DIFF_SEEDS", SEEDS), setting("LANDBRIDGE_DIFF_OPS", OPERATIONS));
    let length = length / share;
    let first: u64 = setting("LANDBRIDGE_DIFF_FIRST_SEED", 1);
    let concurrent = setting("LANDBRIDGE_DIFF_CONCURRENT", CONCURRENT);

    let begun = Instant::now();
    let mut waiting = first..first + seeds;
    let mut runs = JoinSet::new();
    let mut all = Report::default();
    let mut seen_once = Vec::new();
    loop {
        while runs.len() < concurrent
            && let Some(seed) = waiting.next()
        {
            runs.spawn(run_seed(etcd.clone(), seed, generator(seed).take(length).collect()));
        }
        let Some(outcome) = runs.join_next().await else { break };
        let (seed, operations, outcome) = outcome.unwrap();
        match outcome {
            Ok((report, before)) => {
                seen_once.extend(before.map(|failure| format!("seed {seed}, {failure}")));
                println!("seed {seed}: no difference ({:.1?})", begun.elapsed());
                all.coverage.add(&report.coverage);
                for (difference, count) in report.differences {
                    *all.differences.entry(difference).or_default() += count;
                }
            }
            Err(failure) => {
                runs.shutdown().await;
                fail(&etcd, seed, operations, failure).await;
            }
        }
    }
    println!(
        "{seeds} seeds of {length} operations from {first} on, in {:.1?}\n{}",
        begun.elapsed(),
        all.coverage
    );
    for (allowed, reason) in ALLOWED_DIFFERENCES {
        let count = all.differences.get(allowed).copied().unwrap_or(0);
        println!("{count:>9} allowed: {allowed:?}: {reason}");
    }
    for reason in NOT_DRAWN {
        println!("not drawn: {reason}");
    }
    for failure in &seen_once {
        println!("seen once, and not when it was run anew: {failure}");
    }
    assert!(seen_once.len() <= SEEN_ONCE, "{}", seen_once.join("\n"));
    let mut missing = all.coverage.missing();
    missing.retain(|option| has_to_be_seen(option));
    assert_eq!(missing, [""; 0], "was never drawn or seen");
}

/// Runs a seed, once more if there was a difference, which is returned if it was not there again.
async fn run_seed(
    etcd: PathBuf,
    seed: u64,
    operations: Vec<Operation>,
) -> (u64, Vec<Operation>, Result<(Report, Option<Failure>), Failure>) {
    let outcome = match run(&etcd, &operations).await {
        Ok(report) => Ok((report, None)),
        Err(failure) => run(&etcd, &operations).await.map(|report| (report, Some(failure))),
    };
    (seed, operations, outcome)
}

/// Prints what failed, and the shortest sequence found that fails.
async fn fail(etcd: &Path, seed: u64, mut operations: Vec<Operation>, failure: Failure) {
    println!("seed {seed}, {failure}");
    operations.truncate(failure.index + 1);
    let time = setting("LANDBRIDGE_DIFF_SHRINK_SECONDS", SHRINKING.as_secs());
    let time = Duration::from_secs(time);
    let mut last = None;
    let shrunk = shrink(operations, time, async |rest| {
        let failure = run(etcd, rest).await.err()?;
        let index = failure.index;
        last = Some(failure);
        Some(index)
    })
    .await;
    println!("the shortest sequence found that fails, of seed {seed}:");
    for operation in shrunk {
        println!("  {operation:?}");
    }
    panic!("seed {seed} failed: {}", last.unwrap_or(failure));
}

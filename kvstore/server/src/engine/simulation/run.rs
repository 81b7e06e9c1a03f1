//! One run: members, clients and faults together, and then the checks.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use landbridge_kvstore_store::{KeyRange, RangeRequest, Store};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use super::check;
use super::load::{Book, client, compactor, keeper, watch};
use super::members::Members;
use super::plan::{MEMBERS, Phase};
use crate::engine::Engine;

const CLIENTS: usize = 3;
/// Simulated time within which a cluster is of use again after a fault: a few elections.
const RECOVERS_WITHIN: Duration = Duration::from_secs(20);
/// Within this a run ends that ends at all, in simulated time.
const ENDS_WITHIN: Duration = Duration::from_mins(10);

/// What a run was made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    seeds: usize,
    operations: usize,
    open: usize,
    revisions: usize,
    leases: usize,
    compactions: u64,
    simulated: Duration,
    slowest_recovery: Duration,
}

impl Summary {
    pub(super) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.open += other.open;
        self.revisions += other.revisions;
        self.leases += other.leases;
        self.compactions += other.compactions;
        self.simulated += other.simulated;
        self.slowest_recovery = self.slowest_recovery.max(other.slowest_recovery);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, operations, open, revisions, leases, compactions, simulated, slowest_recovery } =
            self;
        write!(
            formatter,
            "{seeds} seeds, {operations} operations ({open} open), {revisions} revisions, {leases} leases, \
             {compactions} compactions in {simulated:?} of simulated time; the slowest recovery took {slowest_recovery:?}"
        )
    }
}

/// Runs a simulation in this thread.
///
/// # Errors
/// Its own, and that it does not end.
pub(super) fn in_simulation<T>(
    seed: u64,
    simulation: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    // Whatever takes the dice of its thread takes these.
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = LocalSet::new().block_on(&runtime, async { timeout(ENDS_WITHIN, simulation).await });
    outcome.unwrap_or_else(|_| Err(format!("it does not end within {ENDS_WITHIN:?}")))
}

/// Runs a seed with these faults.
///
/// # Errors
/// What was found.
pub(super) fn run(seed: u64, phases: Vec<Phase>) -> Result<Summary, String> {
    in_simulation(seed, simulate(seed, phases))
}

async fn simulate(seed: u64, phases: Vec<Phase>) -> Result<Summary, String> {
    let begin = Instant::now();
    let mut members = Members::start(seed).await?;
    let book = Rc::new(Book::default());
    let running = || members.running.clone();
    for number in 0..CLIENTS {
        tokio::task::spawn_local(client(seed, number, running(), Rc::clone(&book)));
    }
    for member in 0..MEMBERS {
        tokio::task::spawn_local(watch(member, running(), Rc::clone(&book)));
    }
    tokio::task::spawn_local(keeper(seed, running(), Rc::clone(&book)));
    tokio::task::spawn_local(compactor(seed, running(), Rc::clone(&book)));
    let mut slowest_recovery = Duration::ZERO;
    for phase in phases {
        members.strike(phase.fault).await?;
        sleep(phase.lasts).await;
        members.mend().await?;
        let recovered = goes_on(&book, phase.after).await;
        let recovered = recovered.map_err(|error| format!("after {phase:?}: {error}: {members}"))?;
        slowest_recovery = slowest_recovery.max(recovered);
    }
    book.is_over.set(true);
    // Leases may still end; what is compared is of one moment.
    let engines = loop {
        let revision = |engine: &Engine| engine.read(Store::revision);
        let seen = |revision| book.seen.iter().all(|seen| seen.borrow().newest == revision);
        match members.are_equally_far() {
            Some(engines) if seen(revision(&engines[0])) => break engines,
            _ => sleep(Duration::from_millis(20)).await,
        }
    };
    let seen: Vec<_> = book.seen.iter().map(|seen| seen.borrow()).collect();
    let log = check::log_of(seen.iter().map(|seen| &**seen))?;
    drop(seen);
    check::check(&book, &log)?;
    let expected = check::last(&log);
    let revision = log.last_key_value().map_or(1, |last| *last.0);
    let all = RangeRequest { revision, ..RangeRequest::new(KeyRange::From(Bytes::from_static(b"\0"))) };
    let mut hashes = Vec::new();
    for (number, engine) in engines.iter().enumerate() {
        let found = engine.read(|store| store.range(&all)).map_err(|error| error.to_string())?;
        if !found.kvs.iter().eq(expected.values()) {
            return Err(format!(
                "member {number} has {found:?} at {revision}, and the events leave {expected:?}"
            ));
        }
        hashes.push(engine.read(|store| store.hash_kv(revision)).map_err(|error| error.to_string())?);
    }
    if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("members differ in their history: {hashes:?}"));
    }
    Ok(summary(&book, &log, begin, slowest_recovery))
}

fn summary(book: &Book, log: &check::Log, begin: Instant, slowest_recovery: Duration) -> Summary {
    let records = book.records.borrow();
    Summary {
        seeds: 1,
        operations: records.len(),
        open: records.iter().filter(|record| record.told.is_none()).count(),
        revisions: log.len(),
        leases: book.kept.borrow().len(),
        compactions: book.compactions.get(),
        simulated: begin.elapsed(),
        slowest_recovery,
    }
}

/// Waits for so many answers, and returns how long the first of them took.
async fn goes_on(book: &Book, answers: usize) -> Result<Duration, String> {
    let (begin, before) = (Instant::now(), book.answers());
    let mut first = None;
    while book.answers() < before + answers {
        if book.answers() > before {
            first.get_or_insert_with(|| begin.elapsed());
        }
        if begin.elapsed() > RECOVERS_WITHIN {
            return Err(format!("{answers} answers did not come within {RECOVERS_WITHIN:?}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(first.unwrap_or_else(|| begin.elapsed()))
}

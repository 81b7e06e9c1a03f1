//! Clusters of this very engine in one thread, on disks in memory, a network in memory, and time that goes on only when
//! nobody has anything to do: minutes pass in moments, and a seed repeats all of it.
//!
//! ```text
//! seed ─► plan ─► faults ──────► members: Engine ─┬─► MemoryDisk: loses what was not synced
//!          └────► clients, watchers ──┘           └─► Net: delays, cuts, ends connections
//!                       └─► records, events ─► check
//! ```
//!
//! What is real: the engine with its log, snapshots, openraft, gRPC between members. What is not: the kernel's files,
//! sockets, and clock; the thread of the log's writer is a task here.
//!
//! What a seed determines: which faults come, what each client asks for, delays of the network and of disks, what a loss of
//! power leaves, and openraft's dice. There is one thread, and time stands still while a task is ready. What a seed does not
//! determine: in which order tasks wake up that wait for the same `tokio::sync::watch`, and where a `select!` of tonic's
//! server begins to look. Both take the dice of Tokio's runtime, which can be given a seed only in a build with
//! `--cfg tokio_unstable`. So a seed that failed fails again most of the time, and not always at the same moment.
//!
//! `LANDBRIDGE_SIMULATION_SEEDS` says how many seeds are run, `LANDBRIDGE_SIMULATION_FIRST_SEED` which is the first.

mod check;
mod load;
mod members;
mod plan;
mod run;
mod runtime;
mod wires;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use landbridge_kvstore_store::PutRequest;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Command;
use crate::planted::{PlantedBug, plant};
pub(super) use runtime::Runtime;
use wires::Net;
pub(super) use wires::Pipe;

/// Where a simulated member is.
#[derive(Clone)]
pub(crate) struct Simulated(Arc<Place>);

struct Place {
    net: Net,
    name: String,
    disk: Mutex<Busy>,
}

/// How long a disk takes.
struct Busy {
    dice: fastrand::Rng,
    longest: Duration,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.name)
    }
}

impl Simulated {
    fn new(net: Net, name: String, seed: u64) -> Self {
        let disk = Busy { dice: fastrand::Rng::with_seed(seed), longest: QUICK };
        Self(Arc::new(Place { net, name, disk: Mutex::new(disk) }))
    }

    /// Where others come in.
    pub(super) fn listen(&self) -> mpsc::UnboundedReceiver<Pipe> {
        self.0.net.listen(&self.0.name)
    }

    /// Connects to the member at the first of its URLs.
    pub(super) async fn dial(&self, urls: &[String]) -> io::Result<Pipe> {
        let url = urls.first().ok_or(io::ErrorKind::NotFound)?;
        self.0.net.dial(&self.0.name, wires::host(url)).await
    }

    /// Waits until the disk has written what was before.
    pub(super) async fn disk_is_busy(&self) {
        let takes = {
            let mut busy = self.0.disk.lock().unwrap_or_else(PoisonError::into_inner);
            let longest = u64::try_from(busy.longest.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(busy.dice.u64(50..longest))
        };
        sleep(takes).await;
    }

    fn set_disk(&self, longest: Duration) {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner).longest = longest;
    }
}

/// The longest that a disk takes which is as it should be.
const QUICK: Duration = Duration::from_millis(3);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Runs seeds in as many threads as there are processors; a seed has its thread for itself.
#[test]
fn whatever_fails_nothing_that_was_answered_is_lost_or_seen_in_another_order() {
    let first = number("LANDBRIDGE_SIMULATION_FIRST_SEED", 1);
    let end = first + number("LANDBRIDGE_SIMULATION_SEEDS", 40);
    let next = std::sync::atomic::AtomicU64::new(first);
    let found = Mutex::new(Vec::new());
    let total = Mutex::new(run::Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while found.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match run::run(seed, plan::phases(seed)) {
                        Ok(summary) => total.lock().unwrap().add(&summary),
                        Err(error) => found.lock().unwrap().push((seed, error)),
                    }
                }
            });
        }
    });
    println!("seeds {first} to {}: {}", end - 1, total.into_inner().unwrap());
    if let Some((seed, error)) = found.into_inner().unwrap().first() {
        panic!("seed {seed} (LANDBRIDGE_SIMULATION_FIRST_SEED={seed}): {error}");
    }
}

/// The checks notice what they are there for: here what takes a cluster, or a loss of power in the midst of its work.
#[test]
fn what_is_wrong_on_purpose_is_noticed() {
    let bugs: [(PlantedBug, plan::Plan); 3] = [
        (PlantedBug::StaleReadOnDeposedLeader, plan::partitions),
        (PlantedBug::LeaseExpiredEarly, plan::phases),
        (PlantedBug::ReplyBeforeFsync, plan::phases),
    ];
    for (bug, phases) in bugs {
        plant(Some(bug));
        let noticed = (1..=20).find_map(|seed| Some((seed, run::run(seed, phases(seed)).err()?)));
        plant(None);
        let (seed, error) = noticed.unwrap_or_else(|| panic!("{bug:?} was not noticed"));
        println!("{bug:?} was noticed with seed {seed}: {error:.300}");
    }
}

#[test]
fn a_seed_repeats_what_goes_wrong() {
    let faults = |seed| plan::phases(seed).into_iter().map(|phase| phase.fault).collect::<Vec<_>>();
    assert_eq!(faults(7), faults(7));
    assert_ne!(faults(7), faults(8));
}

/// A machine that is busy answers late. What is under way must not be lost for that.
#[test]
fn members_that_answer_within_an_election_timeout_keep_their_connections() {
    let writes = async {
        let members = members::Members::start(1).await?;
        members.set_delay(Duration::from_millis(300));
        for count in 0..30 {
            let engine = members.engine(count % plan::MEMBERS).ok_or("a member is down")?;
            let key = format!("key/{count}").into();
            let put = PutRequest { key, ..PutRequest::default() };
            let answer = engine.propose(Command::Put(put)).await;
            answer.map_err(|error| format!("write {count}: {error}: {members}"))?;
        }
        Ok(())
    };
    run::in_simulation(1, writes).unwrap();
}

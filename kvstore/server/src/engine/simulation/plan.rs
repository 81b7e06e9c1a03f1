//! What is going to go wrong, from a seed.

use std::time::Duration;

/// Members of the cluster.
pub(super) const MEMBERS: usize = 3;
/// Faults of a run.
const FAULTS: usize = 5;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Whoever leads when it happens.
    Leader,
    Member(usize),
}

/// What goes wrong, until it is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process ends without a word; what it has written is there.
    Kill(Target),
    /// The power of a machine goes, and takes along what was not synced, wholly or in part.
    PowerLoss(Target),
    /// The power of all machines goes.
    PowerLossOfAll,
    /// Stops in order.
    Stop(Target),
    /// Is cut off from all others.
    CutOff(Target),
    /// Hears the others, and is not heard.
    Mute(Target),
    /// Is heard, and does not hear the others.
    Deaf(Target),
    /// Two do not reach each other, and both reach the third.
    Cable(usize),
    /// Each write to its disk takes up to this long.
    SlowDisk(Target, Duration),
    /// Its clock jumps by so many seconds.
    ClockJump(Target, i64),
    /// Is removed, and a new one added in its place.
    Replace(usize),
    /// Hands leadership over.
    MoveLeader(usize),
}

/// Some quiet, then a fault, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    /// So many operations are answered before.
    pub(super) after: usize,
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
}

/// The faults of the run of a seed.
pub(super) type Plan = fn(u64) -> Vec<Phase>;

/// The faults of a run.
pub(super) fn phases(seed: u64) -> Vec<Phase> {
    let mut dice = fastrand::Rng::with_seed(seed);
    (0..FAULTS)
        .map(|_| {
            let target =
                if dice.u8(..3) < 2 { Target::Leader } else { Target::Member(dice.usize(..MEMBERS)) };
            let fault = match dice.u8(..16) {
                0 | 1 => Fault::Kill(target),
                2 | 3 => Fault::PowerLoss(target),
                4 => Fault::PowerLossOfAll,
                5 => Fault::Stop(target),
                6 | 7 => Fault::CutOff(target),
                8 => Fault::Mute(target),
                9 => Fault::Deaf(target),
                10 => Fault::Cable(dice.usize(..MEMBERS)),
                11 => Fault::SlowDisk(target, Duration::from_millis(dice.u64(20..800))),
                12 => Fault::ClockJump(target, dice.i64(-7200..7200)),
                13 | 14 => Fault::Replace(dice.usize(..MEMBERS)),
                _ => Fault::MoveLeader(dice.usize(..MEMBERS)),
            };
            Phase {
                after: dice.usize(10..40),
                fault,
                // Some pass unnoticed; in some another leader is elected, and has the time to do something.
                lasts: Duration::from_millis(dice.u64(100..6000)),
            }
        })
        .collect()
}

/// Faults that leave a leader behind which does not know that there is another.
pub(super) fn partitions(seed: u64) -> Vec<Phase> {
    let fault =
        |turn| if turn % 2 == 0 { Fault::CutOff(Target::Leader) } else { Fault::Mute(Target::Leader) };
    let lasts = Duration::from_secs(8);
    phases(seed)
        .into_iter()
        .enumerate()
        .map(|(turn, phase)| Phase { fault: fault(turn), lasts, ..phase })
        .collect()
}

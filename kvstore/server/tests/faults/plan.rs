//! What is going to happen, all of it from a seed: faults one after the other, and what each client asks for.
//!
//! Which answers come, and how the two mix, is up to the clock: a seed repeats the questions, not the run.

use std::time::Duration;

/// Members of the clusters here.
pub(crate) const MEMBERS: usize = 3;
/// Clients that ask at the same time.
pub(crate) const CLIENTS: usize = 5;
/// Keys that they ask about at a time.
const KEYS: u64 = 2;
/// Operations of a client until it goes on to fresh keys: histories of a key stay short enough to be searched.
const EPOCH_LEN: u64 = 16;
/// Faults of a run.
const FAULTS: usize = 5;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Whoever leads when it happens.
    Leader,
    Member(usize),
}

/// What goes wrong, until it is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Ends without a word, as by `kill -9`.
    Kill(Target),
    /// All end at once.
    KillAll,
    /// Stops in order.
    Stop(Target),
    /// Stands still, and knows nothing of it: as by `SIGSTOP`, or in a virtual machine that is moved.
    Pause(Target),
    /// Is cut off from all others.
    CutOff(Target),
    /// Hears the others, and is not heard.
    Mute(Target),
    /// Is heard, and does not hear the others.
    Deaf(Target),
    /// Each sync of its disk takes so much longer.
    SlowDisk(Target, Duration),
    /// Its disk has no room left.
    FullDisk(Target),
    /// Its clock jumps by so many seconds, and stays there.
    ClockJump(Target, i64),
    /// Is removed for good, and a new one added in its place.
    Replace(usize),
    /// One of the three cables is out, so that two members do not reach each other, and the third reaches both.
    Cable(usize),
}

/// Some quiet, then a fault, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// So many operations are answered before.
    pub(crate) after: usize,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
}

/// One of the kinds of faults.
pub(crate) type Kind = fn(Target) -> Fault;

/// What can go wrong with a member, and between two.
pub(crate) const KINDS: [Kind; 8] = [
    Fault::Kill,
    Fault::CutOff,
    Fault::Pause,
    |_| Fault::KillAll,
    Fault::Mute,
    Fault::Stop,
    Fault::Deaf,
    |target| Fault::Cable(number(target)),
];

/// What can go wrong with the machine of a member, and with who it is.
pub(crate) const MACHINE_KINDS: [Kind; 5] = [
    |target| Fault::SlowDisk(target, Duration::from_millis(150)),
    |target| Fault::Replace(number(target)),
    Fault::FullDisk,
    |target| Fault::ClockJump(target, 3600),
    |target| Fault::ClockJump(target, -3600),
];

fn number(target: Target) -> usize {
    if let Target::Member(number) = target { number } else { 0 }
}

/// The faults of a run.
pub(crate) fn phases(seed: u64, kinds: &[Kind]) -> Vec<Phase> {
    let mut dice = fastrand::Rng::with_seed(seed);
    // Seeds that follow each other have all kinds.
    let first = usize::try_from(seed).unwrap_or(0).wrapping_mul(FAULTS);
    let mut phases: Vec<Phase> = (first..first.wrapping_add(FAULTS))
        .map(|turn| {
            let target =
                if dice.u8(..3) < 2 { Target::Leader } else { Target::Member(dice.usize(..MEMBERS)) };
            Phase {
                after: dice.usize(30..100),
                fault: kinds[turn % kinds.len()](target),
                // Some pass unnoticed; in some another leader is elected, and has the time to do something.
                lasts: Duration::from_millis(dice.u64(100..3000)),
            }
        })
        .collect();
    dice.shuffle(&mut phases);
    phases
}

/// Which member of a cable's two ends is the one, and which the other.
pub(crate) fn ends(cable: usize) -> (usize, usize) {
    (cable % MEMBERS, (cable + 1) % MEMBERS)
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get {
        key: String,
    },
    Put {
        key: String,
        value: String,
        is_leased: bool,
    },
    /// Two keys by one revision.
    PutTwo {
        keys: [String; 2],
        value: String,
    },
    /// Puts a value if the key holds what the client last knew of it.
    Swap {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
}

/// The next thing that a client does.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// How long it waits before.
    pub(crate) after: Duration,
    pub(crate) member: usize,
    pub(crate) call: Call,
}

/// What a client does, without end. No two of its values are equal, nor are those of two clients.
pub(crate) fn steps(seed: u64, client: usize) -> impl Iterator<Item = Step> {
    let stream = u64::try_from(client).unwrap_or(0) + 1;
    let mut dice = fastrand::Rng::with_seed(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0u64..).map(move |count| {
        let key = |number: u64| format!("key/{}/{number}", count / EPOCH_LEN);
        let value = format!("{client}.{count}");
        let one = key(dice.u64(..KEYS));
        let call = match dice.u8(..20) {
            0..7 => Call::Get { key: one },
            7..12 => Call::Put { key: one, value, is_leased: dice.u8(..4) == 0 },
            12..14 => Call::PutTwo { keys: [key(0), key(1)], value },
            14..18 => Call::Swap { key: one, value },
            _ => Call::Delete { key: one },
        };
        let member = if dice.u8(..5) == 0 { dice.usize(..MEMBERS) } else { client % MEMBERS };
        Step { after: Duration::from_millis(dice.u64(2..25)), member, call }
    })
}

#[test]
fn a_seed_repeats_what_is_asked() {
    let first = |seed| steps(seed, 1).take(50).map(|step| (step.member, step.call)).collect::<Vec<_>>();
    assert_eq!(first(7), first(7));
    assert_ne!(first(7), first(8));
}

//! Which nodes answer: a clock-free prober, told of time, probes and answers.
//!
//! ```text
//!                 4 probes and 1.35 s without an answer
//!   reachable ───────────────────────────────────────────► unreachable
//!       ▲                                                       │ answer
//!       │   2 s of answers                                      ▼
//!       └─────────────────────────────────────────────── proving itself ─► (750 ms without one: from the start)
//! ```
//!
//! - A target starts as reachable and has as long as any other to answer. So a new node is used at once, and a node that
//!   never answers is out as fast as one that stops. An agent that starts knows nothing yet: until
//!   [`Prober::is_settled`], what it would say of a dead node is out of date.
//! - Silence counts only while probes go out, and the last of them has its time too: an agent that was stopped for a
//!   while blames nobody.
//! - Whoever stays silent for two probes is asked three times as often until the matter is decided, so that single losses
//!   do not take a node out.
//! - An answer counts when it arrives, however long it took: a path whose delay varies is one that works.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::NodeRef;

/// How fast nodes are given up and taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// Time between probes of a target; 300 ms.
    pub interval: Duration,
    /// How many intervals without an answer, and half of one more, make a target unreachable; 4.
    pub lost: u32,
    /// How long an unreachable target has to answer before it is reachable; 2 s.
    pub hold_down: Duration,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self { interval: Duration::from_millis(300), lost: 4, hold_down: Duration::from_secs(2) }
    }
}

impl HealthOptions {
    /// Silence that makes a target unreachable.
    fn silence(&self) -> Duration {
        self.interval * self.lost + self.grace()
    }

    /// Time for the answer to the last probe.
    fn grace(&self) -> Duration {
        self.interval / 2
    }

    /// The longest time between two answers while a target proves itself: one of them may get lost.
    fn steady_gap(&self) -> Duration {
        self.interval * 2 + self.interval / 2
    }
}

/// Which nodes are not reachable. All others are, those that nobody knows included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// The nodes that do not answer.
    pub unreachable: BTreeSet<NodeRef>,
}

impl Reachability {
    /// Whether `node` takes part in load balancing.
    pub fn is_reachable(&self, node: &NodeRef) -> bool {
        !self.unreachable.contains(node)
    }
}

/// A probe to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who is asked.
    pub target: NodeRef,
    /// Where.
    pub address: IpAddr,
    /// Tells this probe from others to the same target; the answer has to carry it.
    pub sequence: u16,
}

/// A path to a node, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Whether the node takes part in load balancing.
    pub reachable: bool,
    /// Of the last answer; `None` if there was none yet.
    pub round_trip: Option<Duration>,
}

/// Asks nodes whether they are there, and decides.
#[derive(Clone, Debug)]
pub struct Prober {
    options: HealthOptions,
    targets: BTreeMap<NodeRef, Target>,
}

/// How many probes are remembered for their answers: those of the last 1.6 s at the fastest, 4.8 s at the usual pace.
const REMEMBERED: usize = 16;

#[derive(Clone, Debug)]
struct Target {
    address: IpAddr,
    state: State,
    next_probe: Instant,
    next_sequence: u16,
    /// Probes that may still be answered, oldest first.
    sent: Vec<(u16, Instant)>,
    /// When the last answer came, or the target was first asked.
    last_heard: Option<Instant>,
    /// Probes sent since then.
    unanswered: u32,
    /// When there were enough of them to give the target up.
    asked_enough: Option<Instant>,
    round_trip: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not heard of yet.
    Unproven,
    Reachable,
    Unreachable,
    /// Answers again, since then.
    Proving(Instant),
}

impl Prober {
    /// A prober without targets.
    pub fn new(options: HealthOptions) -> Self {
        Self { options, targets: BTreeMap::new() }
    }

    /// Sets who is probed. Targets that stay keep what is known of them, also under a new address.
    pub fn set_targets(&mut self, now: Instant, targets: BTreeMap<NodeRef, IpAddr>) {
        self.targets.retain(|node, _| targets.contains_key(node));
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
        // Spread over one interval, so that a thousand targets are not probed all at once.
        let step = self.options.interval / count;
        for (index, (node, address)) in (0_u32..).zip(targets) {
            let target = self.targets.entry(node).or_insert_with(|| Target {
                address,
                state: State::Unproven,
                next_probe: now + step * index,
                next_sequence: 0,
                sent: Vec::new(),
                last_heard: None,
                unanswered: 0,
                asked_enough: None,
                round_trip: None,
            });
            if target.address != address {
                // Answers of the old address say nothing of the new one, which gets its time to answer.
                target.address = address;
                target.sent.clear();
                target.last_heard = Some(now);
                target.unanswered = 0;
                target.asked_enough = None;
            }
        }
    }

    /// The probes to send now. Also decides who has been silent for too long.
    pub fn due(&mut self, now: Instant) -> Vec<Probe> {
        let options = self.options;
        let mut probes = Vec::new();
        for (node, target) in &mut self.targets {
            target.decide(now, &options);
            if target.next_probe <= now {
                let sequence = target.send(now, &options);
                probes.push(Probe { target: node.clone(), address: target.address, sequence });
            }
        }
        probes
    }

    /// An answer has come. One to a probe that is not remembered, or was answered before, says nothing.
    pub fn answered(&mut self, now: Instant, node: &NodeRef, sequence: u16) {
        let options = self.options;
        if let Some(target) = self.targets.get_mut(node) {
            target.answered(now, sequence, &options);
        }
    }

    /// When [`due`](Self::due) has something to do next; `None` without targets. Can be in the past.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = |target: &Target| {
            let silent = target.silent_at(&self.options);
            silent.map_or(target.next_probe, |silent| silent.min(target.next_probe))
        };
        self.targets.values().map(deadline).min()
    }

    /// Whether every target has answered or had its time to: 1.65 s after the first ones are set at the latest, if
    /// [`due`](Self::due) is called in time.
    pub fn is_settled(&self) -> bool {
        self.targets.values().all(|target| target.state != State::Unproven)
    }

    /// Who is not reachable.
    pub fn reachability(&self) -> Reachability {
        let unreachable = self.targets.iter().filter(|(_, target)| !target.is_reachable());
        Reachability { unreachable: unreachable.map(|(node, _)| node.clone()).collect() }
    }

    /// What is known of each target.
    pub fn paths(&self) -> BTreeMap<NodeRef, Path> {
        let path = |target: &Target| Path { reachable: target.is_reachable(), round_trip: target.round_trip };
        self.targets.iter().map(|(node, target)| (node.clone(), path(target))).collect()
    }
}

impl Target {
    const fn is_reachable(&self) -> bool {
        matches!(self.state, State::Unproven | State::Reachable)
    }

    fn send(&mut self, now: Instant, options: &HealthOptions) -> u16 {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        if self.sent.len() == REMEMBERED {
            self.sent.remove(0);
        }
        self.sent.push((sequence, now));
        self.last_heard.get_or_insert(now);
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= options.lost {
            self.asked_enough.get_or_insert(now);
        }
        let in_doubt = self.unanswered >= 2 && self.state != State::Unreachable;
        self.next_probe = now + if in_doubt { options.interval / 3 } else { options.interval };
        sequence
    }

    fn answered(&mut self, now: Instant, sequence: u16, options: &HealthOptions) {
        let Some(index) = self.sent.iter().position(|(sent, _)| *sent == sequence) else { return };
        // What was asked before this probe and is still open may be answered later; it stays.
        let (_, sent_at) = self.sent.remove(index);
        self.round_trip = Some(now.saturating_duration_since(sent_at));
        let gap = self.last_heard.map(|heard| now.saturating_duration_since(heard)).unwrap_or_default();
        self.last_heard = Some(now);
        self.unanswered = 0;
        self.asked_enough = None;
        self.next_probe = self.next_probe.max(sent_at + options.interval);
        self.state = match self.state {
            State::Unproven | State::Reachable => State::Reachable,
            State::Unreachable => State::Proving(now),
            State::Proving(_) if gap > options.steady_gap() => State::Proving(now),
            State::Proving(since) if now.saturating_duration_since(since) >= options.hold_down => {
                State::Reachable
            }
            State::Proving(since) => State::Proving(since),
        };
    }

    /// When the target is given up if nothing is heard until then; `None` if that cannot be said yet, or was decided.
    fn silent_at(&self, options: &HealthOptions) -> Option<Instant> {
        let heard = self.last_heard?;
        match self.state {
            State::Unreachable => None,
            State::Proving(_) => Some(heard + options.steady_gap()),
            State::Unproven | State::Reachable => {
                let asked = self.asked_enough?;
                Some((heard + options.silence()).max(asked + options.grace()))
            }
        }
    }

    fn decide(&mut self, now: Instant, options: &HealthOptions) {
        if self.silent_at(options).is_some_and(|at| at <= now) {
            self.state = State::Unreachable;
        }
    }
}

//! The prober in a simulated network: seeded loss and delay, simulated time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use landbridge_agent_mesh::{HealthOptions, NodeRef, Prober};

use crate::records::{ip, node_ref};

const MINUTE: Duration = Duration::from_mins(1);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A generator of numbers that are the same for the same seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A prober with its targets, its clock and the answers that are on their way.
struct Network {
    start: Instant,
    now: Instant,
    prober: Prober,
    answers: BTreeMap<(Instant, u64), (NodeRef, u16)>,
    sent: u64,
    /// When b1 became unreachable or reachable again, since the start.
    changes: Vec<(Duration, bool)>,
}

impl Network {
    fn new(targets: &[(&str, &str)]) -> Self {
        let start = Instant::now();
        let mut network = Self {
            start,
            now: start,
            prober: Prober::new(HealthOptions::default()),
            answers: BTreeMap::new(),
            sent: 0,
            changes: vec![],
        };
        network.set_targets(targets);
        network
    }

    fn set_targets(&mut self, targets: &[(&str, &str)]) {
        let targets = targets.iter().map(|(node, address)| (node_ref("b", node), ip(address)));
        self.prober.set_targets(self.now, targets.collect());
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn is_reachable(&self, node: &str) -> bool {
        self.prober.reachability().is_reachable(&node_ref("b", node))
    }

    /// Lets time pass. `path` says, for a probe sent at a time, how long its answer takes; `None` if there is none.
    fn run(&mut self, duration: Duration, mut path: impl FnMut(&str, Duration) -> Option<Duration>) {
        let end = self.now + duration;
        loop {
            let answer = self.answers.keys().next().map(|(at, _)| *at);
            let deadline = self.prober.next_deadline();
            let Some(next) = answer.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            // A timer can be looked at before the answers that have come: the worse order.
            for probe in self.prober.due(self.now) {
                self.sent += 1;
                if let Some(delay) = path(probe.target.node.as_str(), self.now - self.start) {
                    self.answers.insert((self.now + delay, self.sent), (probe.target, probe.sequence));
                }
            }
            while let Some(entry) = self.answers.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (node, sequence) = entry.remove();
                self.prober.answered(self.now, &node, sequence);
            }
            let reachable = self.is_reachable("b1");
            if reachable != self.changes.last().is_none_or(|(_, reachable)| *reachable) {
                self.changes.push((self.elapsed(), reachable));
            }
        }
        self.now = end;
    }
}

const B1: (&str, &str) = ("b1", "10.2.1.2");
const B2: (&str, &str) = ("b2", "10.2.2.2");

#[test]
fn a_node_that_dies_is_out_within_a_second_and_a_half() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let death = millis(3_000 + random.below(2_000));
        let mut network = Network::new(&[B1, B2]);
        network.run(millis(10_000), |node, at| {
            (node == "b2" || at < death).then(|| millis(1 + random.below(40)))
        });
        let [(out, false)] = network.changes[..] else { panic!("seed {seed}: {:?}", network.changes) };
        assert!(
            out >= death + millis(1_000) && out <= death + millis(1_500),
            "seed {seed}: dead at {death:?}, out at {out:?}"
        );
        assert!(network.is_reachable("b2"));
    }
}

#[test]
fn a_node_comes_back_after_two_steady_seconds() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let back = millis(10_000 + random.below(1_000));
        let mut network = Network::new(&[B1]);
        network.run(millis(20_000), |_, at| {
            (at < millis(3_000) || at >= back).then(|| millis(1 + random.below(20)))
        });
        let [(_, false), (again, true)] = network.changes[..] else {
            panic!("seed {seed}: {:?}", network.changes)
        };
        assert!(
            again >= back + millis(2_000) && again <= back + millis(2_700),
            "seed {seed}: {back:?} {again:?}"
        );
    }
}

#[test]
fn a_node_that_comes_and_goes_stays_out() {
    let mut network = Network::new(&[B1]);
    // A second of answers, then a second without.
    network.run(millis(3_000), |_, _| None);
    network.run(MINUTE * 5, |_, at| (at.as_millis() / 1_000 % 2 == 0).then(|| millis(5)));
    assert_eq!(network.changes.len(), 1, "{:?}", network.changes);
}

#[test]
fn lost_packets_take_no_node_out() {
    for (percent, seed) in [(5, 1), (10, 2), (20, 3), (25, 4)] {
        let mut random = Random(seed);
        let mut network = Network::new(&[B1]);
        network.run(MINUTE * 10, |_, _| (random.below(100) >= percent).then(|| millis(1 + random.below(20))));
        assert_eq!(network.changes, [], "{percent} % lost, seed {seed}");
    }
}

#[test]
fn lost_packets_keep_no_node_out() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut network = Network::new(&[B1]);
        network.run(millis(5_000), |_, _| None);
        network.run(millis(10_000), |_, _| (random.below(100) >= 10).then(|| millis(5)));
        assert!(network.is_reachable("b1"), "seed {seed}");
    }
}

#[test]
fn delay_that_varies_takes_no_node_out() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut network = Network::new(&[B1]);
        network.run(MINUTE * 10, |_, _| Some(millis(random.below(900))));
        assert_eq!(network.changes, [], "seed {seed}");
    }
}

#[test]
fn an_agent_that_was_stopped_blames_nobody() {
    let mut network = Network::new(&[B1, B2]);
    let path = |node: &str, _| (node == "b1").then(|| millis(5));
    network.run(millis(3_000), path);
    assert!(!network.is_reachable("b2"));
    for stop in [1, 2, 10, 100] {
        network.now += Duration::from_secs(stop);
        network.run(millis(3_000), path);
        assert_eq!(network.changes, [], "after {stop} s");
    }
}

#[test]
fn an_agent_that_was_stopped_waits_for_the_answers_to_what_it_asks_then() {
    let mut network = Network::new(&[B1]);
    network.run(millis(3_000), |_, _| Some(millis(5)));
    // Three are lost, then the agent rests, and everything is as before when it goes on.
    let asked = network.sent;
    while network.sent < asked + 3 {
        network.run(millis(10), |_, _| None);
    }
    network.now += Duration::from_secs(5);
    network.run(millis(3_000), |_, _| Some(millis(40)));
    assert_eq!(network.changes, []);
}

#[test]
fn an_agent_that_was_stopped_takes_no_node_back_for_it() {
    let mut network = Network::new(&[B1]);
    network.run(millis(3_000), |_, _| None);
    network.run(millis(1_000), |_, _| Some(millis(5)));
    assert!(!network.is_reachable("b1"));
    // The answer to the last probe is looked at after a stop of five seconds: that is no steady answering.
    let probe = loop {
        network.now += millis(10);
        if let Some(probe) = network.prober.due(network.now).pop() {
            break probe;
        }
    };
    network.now += millis(5_000);
    network.prober.answered(network.now, &probe.target, probe.sequence);
    assert!(!network.is_reachable("b1"));
    network.run(millis(2_700), |_, _| Some(millis(5)));
    assert!(network.is_reachable("b1"));
}

#[test]
fn a_node_that_never_answers_is_out_as_fast_as_one_that_stops() {
    let mut network = Network::new(&[B1, B2]);
    assert!(!network.prober.is_settled());
    network.run(millis(1_300), |node, _| (node == "b2").then(|| millis(5)));
    assert!(network.is_reachable("b1") && !network.prober.is_settled());
    network.run(millis(350), |node, _| (node == "b2").then(|| millis(5)));
    assert!(!network.is_reachable("b1") && network.is_reachable("b2") && network.prober.is_settled());
}

#[test]
fn targets_come_move_and_go() {
    let always = |_: &str, _: Duration| Some(millis(5));
    let mut network = Network::new(&[B1]);
    network.run(millis(3_000), |_, _| None);
    assert!(!network.is_reachable("b1"));
    // Nobody is not reachable who is not known.
    network.set_targets(&[B2]);
    assert!(network.is_reachable("b1"));
    network.run(millis(3_000), always);
    assert_eq!(network.prober.paths().len(), 1);
    let path = network.prober.paths()[&node_ref("b", "b2")];
    assert_eq!((path.reachable, path.round_trip), (true, Some(millis(5))));
    // Answers of the old address do not speak for the new one.
    network.set_targets(&[("b2", "10.2.9.2")]);
    network.run(millis(1_300), |_, _| None);
    assert!(network.is_reachable("b2"));
    network.run(millis(200), |_, _| None);
    assert!(!network.is_reachable("b2"));
    network.set_targets(&[]);
    assert_eq!(network.prober.next_deadline(), None);
    assert!(network.prober.is_settled());
}

#[test]
fn an_answer_counts_once_and_only_if_it_was_asked_for() {
    let start = Instant::now();
    let mut prober = Prober::new(HealthOptions::default());
    let b1 = node_ref("b", "b1");
    prober.set_targets(start, BTreeMap::from([(b1.clone(), ip("10.2.1.2"))]));
    let probes = prober.due(start);
    assert_eq!(probes.len(), 1);
    prober.answered(start + millis(10), &b1, probes[0].sequence);
    let mut now = start;
    while now < start + millis(1_400) {
        now += millis(50);
        prober.due(now);
        prober.answered(now, &b1, probes[0].sequence);
        prober.answered(now, &b1, probes[0].sequence.wrapping_sub(1));
        prober.answered(now, &node_ref("b", "b2"), probes[0].sequence);
    }
    assert!(!prober.reachability().is_reachable(&b1));
}

#[test]
fn probes_are_spread_and_few() {
    let targets: Vec<_> = (0..100).map(|index| (format!("n{index}"), format!("10.2.{index}.2"))).collect();
    let targets: Vec<_> = targets.iter().map(|(node, address)| (node.as_str(), address.as_str())).collect();
    let mut network = Network::new(&targets);
    let mut at_once: BTreeMap<Duration, u32> = BTreeMap::new();
    // One that is dead costs no more than one that lives, once that is decided.
    network.run(MINUTE, |node, at| {
        *at_once.entry(at).or_default() += 1;
        (node != "n7").then(|| millis(5))
    });
    assert!(at_once.values().all(|count| *count <= 2), "{:?}", at_once.values().max());
    let expected = 100 * 60_000 / 300;
    assert!((expected..expected + 120).contains(&network.sent), "{} probes", network.sent);
}

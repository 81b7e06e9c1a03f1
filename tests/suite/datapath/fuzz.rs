//! Random packets meet random maps, in the kernel and in a model of it.
//!
//! ```text
//!  seed ─► maps ──┬──► kernel's maps   packets ─► program, in the kernel ─► action, frame, mark, count ─┐
//!                 └──► model's tables          └► model ──────────────────► the same ──────────────────┴─ equal?
//! ```
//!
//! Nothing is masqueraded here: which port of the node a connection gets is left to chance, so no model can say how the
//! frame ends. `landbridge-bpf-verdict` holds the choice to its rule by tests of its own, and
//! [`masquerade`](super::masquerade) sends such packets between hosts, who look at the checksums.

mod calls;
mod edits;
mod frames;
mod model;
mod services;
mod world;

use std::collections::BTreeMap;
use std::env;

use fastrand::Rng;
use landbridge_bpf_loader::maps::{
    ConnectionEntry, ConnectionKey, Direction, FragmentKey, FragmentPorts, NodeConfig, Reason, ServiceFlow,
    ServiceFlowKey, Step, TrafficCount,
};
use landbridge_bpf_loader::{Build, Trial, TrialAction, TrialPacket};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::SIZES;
use super::trial::{INTERFACE, config, now};
use model::{Arrival, Model};

/// How many packets have to have run.
const ENOUGH: u64 = 1_000_000;
/// Packets that meet the same maps.
const PER_WORLD: u64 = 500;
/// Settings of a run: the number to replay a failure with, and how many packets if more are wanted.
const SEED: &str = "LANDBRIDGE_FUZZ_SEED";
const PACKETS: &str = "LANDBRIDGE_FUZZ_PACKETS";

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) build: Build,
    pub(super) programs: &'static [&'static str],
    /// Other nodes' pods are reached without a tunnel.
    pub(super) is_direct: bool,
    pub(super) seed: u64,
    pub(super) packets: u64,
}

/// How often each program ended how.
type Endings = BTreeMap<(&'static str, Option<(Reason, Direction)>), u64>;
/// How often packets went on with which program.
type Steps = BTreeMap<Step, u64>;
type Counts = BTreeMap<(Reason, Direction), TrafficCount>;

#[test]
fn a_million_packets_end_as_a_model_says() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let seed = setting(SEED).unwrap_or_else(|| fastrand::u64(..));
    let packets = setting(PACKETS).unwrap_or_default().max(ENOUGH);
    // Only the object for tests can be told of a tunnel.
    let released = Plan {
        build: Build::Released,
        programs: &["from_pod", "to_pod", "to_overlay", "from_overlay", "from_uplink", "to_uplink"],
        is_direct: false,
        seed,
        packets: packets * 3 / 5,
    };
    let fifth = Plan { packets: packets / 5, ..released };
    let trial = Plan { build: Build::Trial(None), programs: &["from_overlay"], ..fifth };
    let direct = Plan { programs: &["from_pod", "from_uplink", "to_uplink"], is_direct: true, ..fifth };
    let runs =
        [released, trial, direct].map(|plan| run(&plan).unwrap_or_else(|difference| panic!("{difference}")));
    let (endings, steps): (Vec<Endings>, Vec<Steps>) = runs.into_iter().unzip();
    let ran: u64 = endings.iter().flat_map(BTreeMap::values).sum();
    for step in Step::ALL {
        let times: u64 = steps.iter().filter_map(|steps| steps.get(&step)).sum();
        println!("{} took {times} packets", step.program());
        assert!(times >= ran / 20_000, "{SEED}={seed}: {} took only {times} packets", step.program());
    }
    assert!(ran >= ENOUGH, "only {ran} packets ran");
    println!("{ran} packets ran, {SEED}={seed}");
    // What never happens is not compared either.
    for ((program, reason, direction), endings) in OFTEN
        .iter()
        .map(|often| (often, &endings[0]))
        .chain(OFTEN_FROM_TUNNELS.iter().map(|often| (often, &endings[1])))
        .chain(OFTEN_WITHOUT_TUNNELS.iter().map(|often| (often, &endings[2])))
    {
        let times = endings.get(&(*program, Some((*reason, *direction)))).copied().unwrap_or_default();
        let name = reason.name();
        assert!(
            times >= ran / 40_000,
            "{SEED}={seed}: {program} ended as {name} {direction:?} only {times} times"
        );
    }
}

const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

/// Endings that each run has to have seen often enough.
const OFTEN: [(&str, Reason, Direction); 31] = [
    ("from_pod", Reason::FORWARDED, OUT),
    ("from_pod", Reason::FORWARDED, IN),
    ("from_pod", Reason::INVALID_SOURCE, OUT),
    ("from_pod", Reason::POLICY_DENIED, OUT),
    ("from_pod", Reason::POLICY_DENIED, IN),
    ("from_pod", Reason::POLICY_DENIED_BY_DENYLIST, OUT),
    ("from_pod", Reason::POLICY_DENIED_BY_DENYLIST, IN),
    ("from_pod", Reason::INVALID_PACKET, OUT),
    ("from_pod", Reason::UNSUPPORTED_PROTOCOL, OUT),
    ("from_pod", Reason::INVALID_CONNECTION, OUT),
    ("from_pod", Reason::INVALID_EXTENSION_HEADER, OUT),
    ("from_pod", Reason::UNKNOWN_TRANSPORT, OUT),
    ("from_pod", Reason::FRAGMENT_NOT_FOUND, OUT),
    ("from_pod", Reason::FRAGMENTATION_NEEDED, OUT),
    ("from_pod", Reason::ENCAPSULATION_PROHIBITED, OUT),
    ("from_pod", Reason::FORBIDDEN_ICMP6, OUT),
    ("from_pod", Reason::TTL_EXCEEDED, OUT),
    ("from_pod", Reason::NO_TUNNEL_ENDPOINT, OUT),
    ("from_pod", Reason::NO_SERVICE_BACKEND, OUT),
    ("to_pod", Reason::FORWARDED, IN),
    ("to_pod", Reason::INVALID_SOURCE, IN),
    ("to_pod", Reason::UNKNOWN_TARGET, IN),
    ("to_pod", Reason::POLICY_DENIED, IN),
    ("to_overlay", Reason::FORWARDED, OUT),
    ("to_overlay", Reason::INVALID_SOURCE, OUT),
    ("to_overlay", Reason::NO_TUNNEL_ENDPOINT, OUT),
    ("from_overlay", Reason::INVALID_TUNNEL_KEY, IN),
    ("from_uplink", Reason::FORWARDED, IN),
    ("from_uplink", Reason::INVALID_SOURCE, IN),
    ("from_uplink", Reason::POLICY_DENIED, IN),
    ("to_uplink", Reason::INVALID_SOURCE, OUT),
];
const OFTEN_WITHOUT_TUNNELS: [(&str, Reason, Direction); 4] = [
    ("from_pod", Reason::FORWARDED, OUT),
    ("from_uplink", Reason::FORWARDED, IN),
    ("from_uplink", Reason::INVALID_SOURCE, IN),
    ("from_uplink", Reason::TTL_EXCEEDED, IN),
];
const OFTEN_FROM_TUNNELS: [(&str, Reason, Direction); 7] = [
    ("from_overlay", Reason::FORWARDED, IN),
    ("from_overlay", Reason::INVALID_TUNNEL_KEY, IN),
    ("from_overlay", Reason::INVALID_IDENTITY, IN),
    ("from_overlay", Reason::UNKNOWN_SENDER, IN),
    ("from_overlay", Reason::UNKNOWN_TARGET, IN),
    ("from_overlay", Reason::POLICY_DENIED, IN),
    ("from_overlay", Reason::TTL_EXCEEDED, IN),
];

/// Runs random packets in both, until they differ in something.
pub(super) fn run(plan: &Plan) -> Result<(Endings, Steps), String> {
    let Plan { build, programs, is_direct, seed, packets } = *plan;
    let mut random = Rng::with_seed(seed);
    let direct = if is_direct { NodeConfig::DIRECT } else { 0 };
    let config = NodeConfig { flags: direct, uplink_interface: INTERFACE, ..config() };
    let mut trial = Trial::load(build, config, &SIZES).unwrap();
    let mut endings = Endings::new();
    let mut counted = Counts::new();
    let mut steps = Steps::new();
    let mut ran = 0;
    while ran < packets {
        let mut model = world::any_world(&mut random, config, now());
        model.takes_told_tunnels = build != Build::Released;
        model.counts = std::mem::take(&mut counted);
        model.steps = std::mem::take(&mut steps);
        world::write(&mut trial, &model);
        let (mut program, mut arrival) = (programs[0], frames::any_arrival(&mut random, &model));
        for _ in 0..PER_WORLD {
            // One in three comes again, as most packets of a connection do: its flow is known by then.
            if random.u8(..3) > 0 {
                program = world::pick(&mut random, programs);
                arrival = frames::any_arrival(&mut random, &model);
                if random.bool() {
                    // By chance alone, hardly ever does everything fit together.
                    arrival.tunnel = model.fitting_tunnel(&arrival.frame).or(arrival.tunnel);
                }
            }
            let ending = compare(&trial, &mut model, program, &arrival)
                .map_err(|difference| format!("{SEED}={seed}, packet {ran} of {build:?}: {difference}"))?;
            *endings.entry((program, ending)).or_default() += 1;
            ran += 1;
        }
        let differ = |what, model: &dyn std::fmt::Debug, kernel: &dyn std::fmt::Debug| {
            let when = format!("{SEED}={seed}, before packet {ran} of {build:?}");
            Err(format!("{when}: {what} differ\nmodel: {model:#?}\nkernel: {kernel:#?}"))
        };
        let (known, remembered) = (known(&model), remembered(&mut trial));
        if known != remembered {
            return differ("connections", &known, &remembered);
        }
        let (known, remembered) = (model.tables.fragments.borrow().clone(), datagrams(&mut trial));
        if known != remembered {
            return differ("datagrams in pieces", &known, &remembered);
        }
        let (known, remembered) = (model.tables.service_flows.borrow().clone(), service_flows(&mut trial));
        if known != remembered {
            return differ("connections to services", &known, &remembered);
        }
        if model.counts != counts(&trial) {
            return differ("counts", &model.counts, &counts(&trial));
        }
        counted = model.counts;
        steps = model.steps;
    }
    Ok((endings, steps))
}

/// Runs a packet in both. Returns what it was counted as.
fn compare(
    trial: &Trial,
    model: &mut Model,
    program: &'static str,
    arrival: &Arrival,
) -> Result<Option<(Reason, Direction)>, String> {
    let time = u64::try_from(now().as_nanos()).unwrap();
    let expected = model.run(program, arrival, time);
    let packet = TrialPacket {
        frame: &arrival.frame,
        interface: arrival.interface,
        arrival_interface: arrival.came_through,
        mark: arrival.mark,
        tunnel: arrival.tunnel,
    };
    let result = trial.run(program, &packet).unwrap();
    let counted_so = |(reason, direction)| {
        trial.tables.count(reason, direction).unwrap() == model.counts[&(reason, direction)]
    };
    let same = result.action == expected.action
        && result.mark == expected.mark
        // Nobody sees what is left of a packet that is dropped.
        && (result.frame == expected.frame || expected.action == TrialAction::Drop)
        && expected.counted.is_none_or(counted_so);
    if same {
        return Ok(expected.counted);
    }
    Err(format!(
        "{program} of {arrival:x?}\nmodel: {expected:x?}\nkernel: {result:x?}\n\
         counted by the model {:?}\nby the kernel {:?}",
        model.counts,
        counts(trial)
    ))
}

fn counts(trial: &Trial) -> Counts {
    let counts = trial.tables.counts().unwrap().into_iter();
    counts.map(|(reason, direction, count)| ((reason, direction), count)).collect()
}

/// A connection but for the time, which the two read one after the other.
type Connection = (ConnectionKey, u32, u32);

fn without_time((key, entry): (&ConnectionKey, &ConnectionEntry)) -> Connection {
    (*key, entry.peer, entry.flags)
}

fn remembered(trial: &mut Trial) -> Vec<Connection> {
    trial.tables.connections().entries().unwrap().iter().map(without_time).collect()
}

fn datagrams(trial: &mut Trial) -> BTreeMap<FragmentKey, FragmentPorts> {
    trial.tables.fragments().entries().unwrap()
}

fn service_flows(trial: &mut Trial) -> BTreeMap<ServiceFlowKey, ServiceFlow> {
    trial.tables.service_flows().entries().unwrap()
}

fn known(model: &Model) -> Vec<Connection> {
    model.tables.connections.borrow().iter().map(without_time).collect()
}

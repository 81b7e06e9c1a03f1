//! Tells whoever listens what became of packets. With nobody listening it is one lookup in an array, and only for packets
//! that there would be something to tell of: those that are dropped, and those that change what is known of a connection.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
    programs::TcContext,
};
use landbridge_bpf_maps::{Direction, Event, EventBudget, EventControl, EventKind, Reason, TracePoint};
use landbridge_bpf_verdict::{Flow, Passage, budget, packet::tcp};

use crate::frame::read_into;
use crate::tables::identity_of;
use crate::tunnel::tunnel;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
#[map]
static EVENT_CONTROL: Array<EventControl> = Array::with_max_entries(1, 0);
#[map]
static EVENT_BUDGET: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of a record in the ring, with the kernel's header.
const RECORD: u64 = 8 + size_of::<Event>() as u64;
/// The listener is woken at most so often when the ring fills up: waking it takes ten times as long as telling.
const WAKEUPS: u64 = 8;

/// What an event is about, in a number: functions of the kernel's virtual machine take five.
#[inline(always)]
fn about(kind: EventKind, sub_type: u8, direction: Direction, flags: u8) -> u64 {
    u64::from(u32::from_le_bytes([kind as u8, sub_type, direction as u8, flags]))
}

/// The identities of sender and receiver, in a number.
#[inline(always)]
const fn between(source: u32, destination: u32) -> u64 {
    (destination as u64) << 32 | source as u64
}

/// Whether someone listens to events of a kind, and what one costs.
#[inline(always)]
fn listening(kind: u8, now: u64) -> Option<u32> {
    let control = EVENT_CONTROL.get(0)?;
    let listened_to = control.kinds >> (kind & 31) & 1 != 0;
    if listened_to && now < control.until { Some(control.cost) } else { None }
}

/// Tells it, if somebody listens. Known to the kernel by its name, see `tables`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell(skb: *mut __sk_buff, flow: *const Flow, identities: u64, about: u64) -> u64 {
    // SAFETY: it is null or whole.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return 0 };
    let [kind, sub_type, direction, flags, ..] = about.to_le_bytes();
    // SAFETY: the helper only reads a clock.
    let time = unsafe { bpf_ktime_get_ns() };
    let Some(cost) = listening(kind, time) else { return 0 };
    let Some(budget) = EVENT_BUDGET.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own copy, see `metrics`.
    let budget = unsafe { &mut *budget };
    if !budget::spend(budget, time, cost) {
        return 0;
    }
    let Some(mut record) = EVENTS.reserve::<Event>(0) else {
        budget.overflowed += 1;
        return 0;
    };
    // SAFETY: the kernel gives every program of this kind a valid context.
    let (len, interface) = unsafe { ((*skb).len, (*skb).ifindex) };
    let ends = flow.tcp_flags & (tcp::FIN | tcp::RST) != 0;
    let is_icmp = flow.policy_port != flow.destination_port;
    record.write(Event {
        time,
        source: flow.source,
        destination: flow.destination,
        source_identity: identities as u32,
        destination_identity: (identities >> 32) as u32,
        interface,
        source_port: flow.source_port,
        destination_port: if is_icmp { flow.policy_port } else { flow.destination_port },
        len: len.min(u16::MAX as u32) as u16,
        kind,
        sub_type,
        protocol: flow.policy_protocol,
        tcp_flags: flow.tcp_flags,
        direction,
        flags: if ends { flags | Event::CLOSES } else { flags },
    });
    let mark = EVENTS.query(BPF_RB_RING_SIZE as u64) / 4;
    let above = EVENTS.query(BPF_RB_AVAIL_DATA as u64).wrapping_sub(mark);
    record.submit(if above < WAKEUPS * RECORD { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP } as u64);
    0
}

#[inline(always)]
fn flags_of(passage: Passage) -> u8 {
    let mut flags = Event::TRACKED;
    if passage.has(Passage::NEW) {
        flags |= Event::OPENS;
    }
    if passage.has(Passage::REPLY) {
        flags |= Event::REPLY;
    }
    flags
}

/// Tells that a packet goes on, if that is worth telling, from the identity `source` to the identity `destination`.
#[inline(always)]
pub fn trace(
    ctx: &TcContext,
    flow: &Flow,
    point: TracePoint,
    direction: Direction,
    (source, destination): (u32, u32),
    passage: Passage,
) {
    if passage.has(Passage::NOTED) {
        let about = about(EventKind::Trace, point as u8, direction, flags_of(passage));
        tell(ctx.skb.skb, flow, between(source, destination), about);
    }
}

/// Tells what a policy said of a new connection between an endpoint and `peer`.
#[inline(always)]
pub fn verdict(
    skb: *mut __sk_buff,
    flow: &Flow,
    direction: Direction,
    (endpoint, peer): (u32, u32),
    outcome: Result<Passage, Reason>,
) {
    let (reason, flags) = match outcome {
        Ok(passage) if passage.has(Passage::NEW) => (Reason::FORWARDED, flags_of(passage)),
        Ok(_) => return,
        Err(reason @ (Reason::POLICY_DENIED | Reason::POLICY_DENIED_BY_DENYLIST)) => (reason, 0),
        Err(_) => return,
    };
    let identities = match direction {
        Direction::Ingress => between(peer, endpoint),
        Direction::Egress => between(endpoint, peer),
    };
    tell(skb, flow, identities, about(EventKind::PolicyVerdict, reason.0, direction, flags));
}

/// Where a packet that was dropped is read once more: the stack, of 512 bytes in all, has no room for it.
#[map]
static DROPPED: PerCpuArray<Flow> = PerCpuArray::with_max_entries(1, 0);

/// Tells of a drop. That the packet was read before is of no use to those that pass. Known to the kernel by its name, see
/// `tables`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_drop(skb: *mut __sk_buff, about: u64) -> u64 {
    // SAFETY: the helper only reads a clock.
    if listening(EventKind::Drop as u8, unsafe { bpf_ktime_get_ns() }).is_none() {
        return 0;
    }
    let Some(place) = DROPPED.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own copy, see `metrics`.
    let flow = unsafe { &mut *place };
    *flow = Flow::default();
    read_into(skb, flow);
    let source = match tunnel(&TcContext::new(skb)) {
        Ok(tunnel) => tunnel.identity,
        Err(_) => identity_of(&flow.source),
    };
    tell(skb, flow, between(source, identity_of(&flow.destination)), about)
}

/// Tells of a drop.
#[inline(always)]
pub fn drop(ctx: &TcContext, reason: Reason, direction: Direction) {
    tell_drop(ctx.skb.skb, about(EventKind::Drop, reason.0, direction, 0));
}

//! Packets that go where the one before them went: one lookup, and nothing is judged.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_ktime_get_coarse_ns, bpf_redirect},
    macros::map,
    maps::{Array, LruHashMap},
    programs::TcContext,
};
#[cfg(feature = "trial")]
use landbridge_bpf_maps::Planted;
use landbridge_bpf_maps::{
    Address, Direction, Endpoint, FlowKey, GENERATION_LEN, Hook, KnownFlow, Reason, Way,
};
use landbridge_bpf_verdict::{
    Flow, Passage,
    known_flow::{Headers, LIFETIME, is_true, is_worth_knowing, key_of, read},
    packet::ETHERNET_LEN,
};

use crate::config::{overlay_interface, overlay_mtu, to_underlay};
use crate::frame::{Linear, OnAccountOf, Outcome, PASS, finish, hand_over, interface, links_of, to_peer};
use crate::metrics::count;
use crate::overlay::TUNNEL_IS_SET;
use crate::tunnel::{Tunnel, room_to, set_tunnel, tunnel};

// The size is the loader's to choose.
#[map]
static KNOWN_FLOWS: LruHashMap<FlowKey, KnownFlow> = LruHashMap::with_max_entries(1 << 17, 0);
#[map]
static GENERATION: Array<u64> = Array::with_max_entries(GENERATION_LEN, 0);

/// The number of the maps that a packet is judged by: read it before any of them.
#[inline(always)]
pub fn generation() -> u32 {
    // Odd is never true.
    GENERATION.get(0).map_or(1, |generation| *generation as u32)
}

/// What becomes of a packet whose flow is known.
#[inline(always)]
pub fn known(ctx: &TcContext, hook: Hook) -> Option<i32> {
    match recall(ctx.skb.skb, hook as u32) {
        UNKNOWN => None,
        action => Some(action as i32),
    }
}

/// No action.
const UNKNOWN: u64 = 1 << 32;

/// See [`known`]. Known to the kernel by its name, see `tables`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall(skb: *mut __sk_buff, hook: u32) -> u64 {
    let ctx = TcContext::new(skb);
    let mut key = FlowKey { interface: interface(&ctx), hook: hook as u8, ..FlowKey::default() };
    let headers = match read_key(skb, &mut key) {
        0 => return UNKNOWN,
        headers => Headers { version: headers as u8, len: (headers >> 8) as u16 },
    };
    // SAFETY: the kernel keeps the memory. The stack has no room for a copy. In a map that is full another flow may get it
    // within the few instructions that follow, as any entry of such a map may be taken from under a program.
    let Some(known) = (unsafe { KNOWN_FLOWS.get(&key) }) else { return UNKNOWN };
    let generation = generation();
    #[cfg(feature = "trial")]
    let generation = if crate::trial::planted(Planted::KnownForever) { known.generation } else { generation };
    // SAFETY: the helper only reads a clock, which is a few milliseconds late.
    if !is_true(known, generation, unsafe { bpf_ktime_get_coarse_ns() }) {
        return UNKNOWN;
    }
    if hook == Hook::Overlay as u32 {
        match tunnel(&ctx) {
            Ok(Tunnel { identity, begin }) if identity == known.identity && begin == known.tunnel => {}
            _ => return UNKNOWN,
        }
    }
    let is_too_big = known.way == Way::Tunnel as u32 && exceeds(&ctx, known, &headers);
    if is_too_big {
        return UNKNOWN;
    }
    let outcome = go(&ctx, hook, known, &headers);
    finish(&ctx, outcome) as u32 as u64
}

/// See [`read`]. Known to the kernel by its name, so that it follows what comes after once, and not for each kind of packet.
/// Returns the version and the length, 0 for nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_key(skb: *mut __sk_buff, key: *mut FlowKey) -> u64 {
    // SAFETY: it is null or whole, and nobody else has it.
    let Some(key) = (unsafe { key.as_mut() }) else { return 0 };
    let ctx = TcContext::new(skb);
    match read(&Linear::of(&ctx), key) {
        Some(Headers { version, len }) => u64::from(version) | u64::from(len) << 8,
        None => 0,
    }
}

/// Whether a packet may be larger than what fits in its tunnel.
#[inline(always)]
fn exceeds(ctx: &TcContext, known: &KnownFlow, headers: &Headers) -> bool {
    let room = room_to(&known.tunnel, overlay_mtu());
    if room == 0 || ctx.len() <= room + ETHERNET_LEN as u32 {
        return false;
    }
    // SAFETY: the kernel gives every program of this kind a valid context.
    let segment = unsafe { (*ctx.skb.skb).gso_size };
    segment == 0 || u32::from(headers.len) + segment > room + ETHERNET_LEN as u32
}

/// Sends a packet where its flow goes.
#[inline(always)]
fn go(ctx: &TcContext, hook: u32, known: &KnownFlow, headers: &Headers) -> Outcome {
    let len = ctx.len();
    if hook == Hook::Pod as u32 {
        count(Reason::FORWARDED, Direction::Egress, len);
    }
    match known.way {
        POD => {
            hand_over(ctx, headers.version, &known.links).of(Direction::Ingress)?;
            count(Reason::FORWARDED, Direction::Ingress, len);
            Ok(to_peer(known.interface))
        }
        TUNNEL => {
            set_tunnel(ctx, &known.tunnel, known.identity).of(Direction::Egress)?;
            ctx.set_mark(TUNNEL_IS_SET);
            // SAFETY: the helper takes two numbers.
            Ok(unsafe { bpf_redirect(overlay_interface(), 0) } as i32)
        }
        UPLINK => Ok(to_underlay()),
        _ => Ok(PASS),
    }
}

const POD: u32 = Way::Pod as u32;
const TUNNEL: u32 = Way::Tunnel as u32;
const UPLINK: u32 = Way::Uplink as u32;

/// Remembers where a packet goes, if the next one of its flow is to go there, too: to a pod of this node, or through a tunnel
/// under an identity.
#[inline(always)]
pub fn learn(
    ctx: &TcContext,
    flow: &Flow,
    passage: Passage,
    generation: u32,
    (hook, way, pod, tunnel, identity): (Hook, Way, Option<&Endpoint>, Option<&Address>, u32),
) {
    let place =
        u64::from(interface(ctx)) | (way as u64) << 32 | (hook as u64) << 40 | u64::from(passage.0) << 48;
    let pod = pod.map_or(core::ptr::null(), core::ptr::from_ref);
    let tunnel = tunnel.map_or(core::ptr::null(), core::ptr::from_ref);
    keep_flow(flow, place, u64::from(generation) | u64::from(identity) << 32, pod, tunnel);
}

/// See [`learn`]. Known to the kernel by its name, see `tables`: `place` is the interface, the way, the hook and the passage,
/// `when` the generation and the identity.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep_flow(
    flow: *const Flow,
    place: u64,
    when: u64,
    pod: *const Endpoint,
    tunnel: *const Address,
) -> u64 {
    // SAFETY: each is null or whole.
    let (Some(flow), pod, tunnel) = (unsafe { (flow.as_ref(), pod.as_ref(), tunnel.as_ref()) }) else {
        return 0;
    };
    let generation = when as u32;
    if !is_worth_knowing(flow, Passage((place >> 48) as u8), generation) {
        return 0;
    }
    let mut known = KnownFlow {
        // SAFETY: the helper only reads a clock.
        until: unsafe { bpf_ktime_get_coarse_ns() } + LIFETIME,
        generation,
        way: (place >> 32) as u32 & 0xff,
        identity: (when >> 32) as u32,
        ..KnownFlow::default()
    };
    if let Some(pod) = pod {
        (known.interface, known.links) = (pod.interface, *links_of(pod));
    }
    if let Some(tunnel) = tunnel {
        known.tunnel = *tunnel;
    }
    // Without it the next packet is judged as well.
    let _ = KNOWN_FLOWS.insert(&key_of(flow, place as u32, (place >> 40) as u8), &known, 0);
    0
}

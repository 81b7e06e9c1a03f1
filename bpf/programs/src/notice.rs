//! What the node answers in the place of a packet, to who sent it: that it is too large, that it came too far, where the
//! gateway is.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_change_tail, programs::TcContext};
use landbridge_bpf_maps::{Address, Direction, Reason};
use landbridge_bpf_verdict::{
    Flow, Fragment,
    neighbour::{Heard, judge},
    notice::{ADVERTISEMENT, ERROR4, ERROR6, Trouble, advertisement, error4, error6},
    packet::{ETHERNET_LEN, TYPE_IPV4, protocol},
};

use crate::config::{router, router6};
use crate::events;
use crate::frame::{Frame, OnAccountOf, Outcome, PASS, accept, interface, to_peer};
use crate::metrics::count;
use crate::tables::endpoint;

/// The kernel's own sum over a packet follows what is written.
const BPF_F_RECOMPUTE_CSUM: u64 = 1;
/// Where the "do not fragment" bit of IPv4 is.
const DONT_FRAGMENT_OFFSET: usize = ETHERNET_LEN + 6;
const DONT_FRAGMENT: u8 = 0x40;
const UDP_LEN: u32 = 8;

/// Whether a packet is larger than `room` bytes, as it is or as the segments that it will be sent in, and may not be
/// divided into fragments.
#[inline(always)]
pub fn is_too_big(ctx: &TcContext, flow: &Flow, room: u32) -> bool {
    ctx.len() > room + ETHERNET_LEN as u32 && exceeds(ctx.skb.skb, flow, room) != 0
}

/// The part of [`is_too_big`] for those that look like it. Known to the kernel by its name, see `tables`, like the other long
/// ones here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exceeds(skb: *mut __sk_buff, flow: *const Flow, room: u32) -> u64 {
    // SAFETY: it is null or whole.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return 0 };
    let ctx = TcContext::new(skb);
    // SAFETY: the kernel gives every program of this kind a valid context.
    let segment = unsafe { (*skb).gso_size };
    if segment != 0 {
        let transport = if flow.protocol == protocol::TCP {
            let Ok(offset) = ctx.load::<u8>(usize::from(flow.transport) + 12) else { return 0 };
            u32::from(offset >> 4) * 4
        } else {
            UDP_LEN
        };
        if u32::from(flow.transport) + transport + segment <= room + ETHERNET_LEN as u32 {
            return 0;
        }
    }
    if flow.version != 4 {
        return 1;
    }
    match ctx.load::<u8>(DONT_FRAGMENT_OFFSET) {
        Ok(flags) => u64::from(flags & DONT_FRAGMENT != 0),
        Err(_) => 0,
    }
}

/// Whether anybody may be told of trouble with a packet: never of an error, and once for all pieces of a datagram
/// (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
#[inline(always)]
fn may_be_told(flow: &Flow) -> bool {
    !flow.is_error() && flow.fragment != Fragment::LATER
}

/// Makes an error for its sender of a packet that is dropped for this reason, which is counted. False if nobody is told.
#[inline(always)]
pub fn make_error(
    ctx: &TcContext,
    flow: &Flow,
    trouble: Trouble,
    reason: Reason,
    direction: Direction,
) -> bool {
    count(reason, direction, ctx.len());
    events::drop(ctx, reason, direction);
    let room = match trouble {
        Trouble::TooBig(room) => u32::from(room),
        Trouble::TimeExceeded => 0,
    };
    may_be_told(flow) && turn_into_error(ctx.skb.skb, room) == 0 && accept(ctx).is_ok()
}

/// Turns a packet into the error that its sender gets: too large for `room` bytes, or come too far if that is 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn turn_into_error(skb: *mut __sk_buff, room: u32) -> u64 {
    const FAILED: u64 = 1;
    let ctx = TcContext::new(skb);
    let trouble = if room == 0 { Trouble::TimeExceeded } else { Trouble::TooBig(room as u16) };
    let Ok(kind) = ctx.load::<[u8; 2]>(ETHERNET_LEN - 2) else { return FAILED };
    let written = if kind == TYPE_IPV4 {
        let (Some(router), Ok(quoted)) = (router().ipv4(), ctx.load::<[u32; 7]>(ETHERNET_LEN)) else {
            return FAILED;
        };
        // What is behind options is not worth the trouble.
        let [version_and_len, ..] = quoted[0].to_ne_bytes();
        if version_and_len != 0x45 {
            return FAILED;
        }
        replace::<ERROR4>(&ctx, &error4(router, trouble, &quoted))
    } else {
        let Ok(quoted) = ctx.load(ETHERNET_LEN) else { return FAILED };
        replace::<ERROR6>(&ctx, &error6(&router6(), trouble, &quoted))
    };
    if written { 0 } else { FAILED }
}

/// Replaces all of a packet behind its Ethernet header, and sends it back where it came from.
#[inline(always)]
fn replace<const N: usize>(ctx: &TcContext, words: &[u32; N]) -> bool {
    let len = (ETHERNET_LEN + 4 * N) as u32;
    // A helper that writes may move the packet: what is read is read before.
    let Ok([a, b, c, d, e, f, g, h, i, j, k, l]) = ctx.load::<[u8; 12]>(0) else { return false };
    // SAFETY: the context is this program's.
    let has_len = unsafe { bpf_skb_change_tail(ctx.skb.skb, len, 0) } == 0;
    has_len
        && ctx.store(ETHERNET_LEN, words, BPF_F_RECOMPUTE_CSUM).is_ok()
        && ctx.store(0, &[g, h, i, j, k, l, a, b, c, d, e, f], BPF_F_RECOMPUTE_CSUM).is_ok()
}

/// Judges and answers what a pod says to its link.
#[inline(always)]
pub fn hear(ctx: &TcContext) -> Outcome {
    match answer(ctx.skb.skb) {
        NOTHING_TO_SAY => Ok(PASS),
        ANSWERED => accept(ctx).map(|()| to_peer(interface(ctx))).of(Direction::Egress),
        reason => Err(Reason(reason as u8)).of(Direction::Egress),
    }
}

/// No drop reasons.
const NOTHING_TO_SAY: u64 = 256;
const ANSWERED: u64 = 257;

/// The part of [`hear`] that looks at the message, and turns a question into its answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer(skb: *mut __sk_buff) -> u64 {
    let ctx = TcContext::new(skb);
    let own = interface(&ctx);
    let gateway = router6();
    let is_own = |address: &Address| endpoint(address).is_some_and(|endpoint| endpoint.interface == own);
    let solicitor = match judge(&Frame(&ctx), &gateway, is_own) {
        Ok(Heard::Asked(solicitor)) => solicitor,
        Ok(Heard::Pass) => return NOTHING_TO_SAY,
        Err(reason) => return u64::from(reason.0),
    };
    let Ok(to) = ctx.load::<[u8; 6]>(0) else { return u64::from(Reason::INVALID_PACKET.0) };
    // Whoever makes sure asks the one that it knows. Who does not know asks all, under the address of the packet that waits.
    let is_group = to[0] & 1 != 0;
    let mac = match endpoint(&solicitor) {
        Some(endpoint) => endpoint.host_mac,
        None if is_group => return NOTHING_TO_SAY,
        None => to,
    };
    if !replace::<ADVERTISEMENT>(&ctx, &advertisement(&gateway, &solicitor, mac)) {
        return u64::from(Reason::WRITE_FAILED.0);
    }
    let [a, b, c, d, e, f] = mac;
    match ctx.store(6, &[a, b, c, d, e, f], BPF_F_RECOMPUTE_CSUM) {
        Ok(()) => ANSWERED,
        Err(_) => u64::from(Reason::WRITE_FAILED.0),
    }
}

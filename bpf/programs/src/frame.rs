//! What is done to packets: read, given to a pod.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_redirect_peer,
    programs::TcContext,
};
#[cfg(feature = "trial")]
use landbridge_bpf_maps::Planted;
use landbridge_bpf_maps::{Direction, Endpoint, Reason};
use landbridge_bpf_verdict::{
    Flow, Packet, Scope,
    packet::{CHECKSUM_OFFSET, HOP_LIMIT_OFFSET, TTL_OFFSET},
    parse,
};

use crate::events;
use crate::metrics::count;
use crate::tables::zero;

/// A packet is for the machine itself (`linux/if_packet.h`).
const PACKET_HOST: u32 = 0;

/// Leaves a packet to the programs after this one and to the stack.
pub const PASS: i32 = TC_ACT_UNSPEC;

/// Drops a packet that is counted already, or not worth it.
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// A packet that is dropped, and on whose account.
pub struct Dropped {
    pub reason: Reason,
    pub direction: Direction,
}

/// What becomes of a packet: a return value of the hook.
pub type Outcome = Result<i32, Dropped>;

/// Says on whose account a packet is dropped.
pub trait OnAccountOf<T> {
    fn of(self, direction: Direction) -> Result<T, Dropped>;
}

impl<T> OnAccountOf<T> for Result<T, Reason> {
    #[inline(always)]
    fn of(self, direction: Direction) -> Result<T, Dropped> {
        match self {
            Ok(value) => Ok(value),
            Err(reason) => Err(Dropped { reason, direction }),
        }
    }
}

/// The end of every program.
#[inline(always)]
pub fn finish(ctx: &TcContext, outcome: Outcome) -> i32 {
    match outcome {
        Ok(action) => action,
        Err(Dropped { reason, direction }) => {
            count(reason, direction, ctx.len());
            events::drop(ctx, reason, direction);
            DROP
        }
    }
}

/// The packet of a hook.
pub struct Frame<'a>(pub &'a TcContext);

impl Packet for Frame<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.load(offset).ok()
    }

    #[inline(always)]
    fn zero(&self) -> u32 {
        zero()
    }
}

/// Reads a packet. Known to the kernel by its name, see `tables`. Returns the drop reason, 0 for none and [`OF_LINK`] for
/// what is said to the link alone.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_into(skb: *mut __sk_buff, flow: *mut Flow) -> u64 {
    // SAFETY: it is null or whole, and nobody else has it.
    let Some(flow) = (unsafe { flow.as_mut() }) else { return u64::from(Reason::INVALID_PACKET.0) };
    match parse(&Frame(&TcContext::new(skb)), flow) {
        Ok(Scope::Network) => 0,
        Ok(Scope::Link) => OF_LINK,
        Err(reason) => u64::from(reason.0),
    }
}

/// No drop reason.
const OF_LINK: u64 = 256;

/// Reads a packet into a place of the caller's.
#[inline(always)]
pub fn read(ctx: &TcContext, flow: &mut Flow) -> Result<Scope, Reason> {
    match read_into(ctx.skb.skb, flow) {
        0 => Ok(Scope::Network),
        OF_LINK => Ok(Scope::Link),
        reason => Err(Reason(reason as u8)),
    }
}

/// Index of the interface that the hook is on.
#[inline(always)]
pub fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel gives every program of this kind a valid context.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Index of the interface that the packet arrived through, 0 for one of this node's own.
#[inline(always)]
pub fn arrival_interface(ctx: &TcContext) -> u32 {
    // SAFETY: as in `interface`.
    unsafe { (*ctx.skb.skb).ingress_ifindex }
}

/// The number that `set_mark` or a socket option left.
#[inline(always)]
pub fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: as in `interface`.
    unsafe { (*ctx.skb.skb).mark }
}

/// Makes the packet one for this machine, whatever link-layer address it was sent to.
#[inline(always)]
pub fn accept(ctx: &TcContext) -> Result<(), Reason> {
    ctx.change_type(PACKET_HOST).map_err(|_| Reason::WRITE_FAILED)
}

/// Whether a packet may go no further than here.
#[inline(always)]
pub fn expires(flow: &Flow) -> bool {
    flow.ttl <= 1
}

/// Hands a packet that does not [expire](expires) to the pod's side of its interface, past the node's stack. Like the router
/// that it does without, it takes one from the time to live: that happens once on the whole way, here.
#[inline(always)]
pub fn deliver(ctx: &TcContext, flow: &Flow, endpoint: &Endpoint) -> Result<i32, Reason> {
    match give(ctx.skb.skb, flow, endpoint) {
        0 => Ok(to_peer(endpoint.interface)),
        reason => Err(Reason(reason as u8)),
    }
}

/// Makes a packet one for a pod. Known to the kernel by its name, see `tables`. Returns the drop reason, 0 for none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn give(skb: *mut __sk_buff, flow: *const Flow, endpoint: *const Endpoint) -> u64 {
    // SAFETY: both are null or whole.
    let outcome = match unsafe { (flow.as_ref(), endpoint.as_ref()) } {
        (Some(flow), Some(endpoint)) => address_to(&TcContext::new(skb), flow, endpoint),
        _ => Err(0),
    };
    match outcome {
        Ok(()) => 0,
        Err(_) => u64::from(Reason::WRITE_FAILED.0),
    }
}

#[inline(always)]
fn address_to(ctx: &TcContext, flow: &Flow, endpoint: &Endpoint) -> Result<(), i64> {
    let ttl = flow.ttl.wrapping_sub(1);
    let word = |ttl: u8| u64::from(u16::from_ne_bytes([ttl, 0]));
    ctx.change_type(PACKET_HOST)?;
    if flow.version == 4 {
        let (checksum, counted) = (CHECKSUM_OFFSET, ttl);
        #[cfg(feature = "trial")]
        let checksum = if crate::trial::planted(Planted::RefusedWrite) { checksum | 1 } else { checksum };
        #[cfg(feature = "trial")]
        let counted = if crate::trial::planted(Planted::ChecksumOffByOne) { counted ^ 1 } else { counted };
        ctx.l3_csum_replace(checksum, word(flow.ttl), word(counted), 2)?;
        ctx.store(TTL_OFFSET, &ttl, 0)?;
    } else {
        ctx.store(HOP_LIMIT_OFFSET, &ttl, 0)?;
    }
    let [a, b, c, d, e, f] = endpoint.mac;
    let [g, h, i, j, k, l] = endpoint.host_mac;
    ctx.store(0, &[a, b, c, d, e, f, g, h, i, j, k, l], 0)
}

/// Hands a packet to the other side of a pod's interface as it is.
#[inline(always)]
pub fn to_peer(interface: u32) -> i32 {
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect_peer(interface, 0) as i32 }
}

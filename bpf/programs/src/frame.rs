//! What is done to packets: read, given to a pod.

use core::mem::offset_of;

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
    packet::{HOP_LIMIT_OFFSET, TTL_OFFSET, one_hop_further},
    parse,
};

use crate::events;
use crate::metrics::count;
use crate::tables::zero;

/// A packet is for the machine itself (`linux/if_packet.h`).
const PACKET_HOST: u32 = 0;
/// What the interface may have summed up changes as much as the packet.
const BPF_F_RECOMPUTE_CSUM: u64 = 1;

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
            lose(ctx.skb.skb, u32::from(reason.0), u32::from(matches!(direction, Direction::Ingress)));
            DROP
        }
    }
}

/// Counts a packet that is dropped, and tells of it. Known to the kernel by its name, see `tables`: many ways lead here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lose(skb: *mut __sk_buff, reason: u32, ingress: u32) -> u64 {
    let ctx = TcContext::new(skb);
    let direction = if ingress != 0 { Direction::Ingress } else { Direction::Egress };
    let reason = Reason(reason as u8);
    count(reason, direction, ctx.len());
    events::drop(&ctx, reason, direction);
    0
}

/// The packet of a hook.
pub struct Frame<'a>(pub &'a TcContext);

/// The part of a packet that lies in one piece, which holds the headers but for the oddest packets. Reading it costs no call.
pub struct Linear {
    begin: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self { begin: ctx.data(), end: ctx.data_end() }
    }
}

impl Packet for Linear {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let begin = self.begin + offset;
        if begin + 4 * N > self.end {
            return None;
        }
        let mut words = [0; N];
        let mut place: *const u32 = begin as *const u32;
        for word in &mut words {
            // SAFETY: within the packet. The kernel loads programs that read words where they are on machines that can.
            unsafe {
                *word = place.read_volatile();
                place = place.add(1);
            }
        }
        Some(words)
    }
}

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
    hand_over(ctx, flow.version, links_of(endpoint))?;
    Ok(to_peer(endpoint.interface))
}

/// The link-layer addresses of a pod's interface, as they begin a frame to it.
#[inline(always)]
pub fn links_of(endpoint: &Endpoint) -> &[u32; 3] {
    const _: () = assert!(offset_of!(Endpoint, host_mac) == offset_of!(Endpoint, mac) + 6);
    const _: () = assert!(offset_of!(Endpoint, mac).is_multiple_of(4));
    // SAFETY: both are there, one behind the other, and aligned like words.
    unsafe { &*core::ptr::from_ref(endpoint).byte_add(offset_of!(Endpoint, mac)).cast() }
}

/// Makes a packet of this version of IP one for the pod with these link-layer addresses, one hop further.
///
/// # Errors
/// [`Reason::WRITE_FAILED`]
#[inline(always)]
pub fn hand_over(ctx: &TcContext, version: u8, links: &[u32; 3]) -> Result<(), Reason> {
    match give(ctx.skb.skb, u32::from(version), links) {
        0 => Ok(()),
        _ => Err(Reason::WRITE_FAILED),
    }
}

/// See [`hand_over`]. Known to the kernel by its name, see `tables`. Returns 0 unless it failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn give(skb: *mut __sk_buff, version: u32, links: *const [u32; 3]) -> u64 {
    // SAFETY: it is null or whole.
    let Some(links) = (unsafe { links.as_ref() }) else { return 1 };
    u64::from(write_hop(&TcContext::new(skb), version, links).is_err())
}

#[inline(always)]
fn write_hop(ctx: &TcContext, version: u32, links: &[u32; 3]) -> Result<(), i64> {
    // SAFETY: as in `interface`.
    if unsafe { (*ctx.skb.skb).pkt_type } != PACKET_HOST {
        ctx.change_type(PACKET_HOST)?;
    }
    if version == 4 {
        let place = TTL_OFFSET;
        let next = one_hop_further(ctx.load(place)?);
        #[cfg(feature = "trial")]
        let place = if crate::trial::planted(Planted::RefusedWrite) { usize::MAX } else { place };
        #[cfg(feature = "trial")]
        let next = if crate::trial::planted(Planted::ChecksumOffByOne) { next ^ 1 << 16 } else { next };
        ctx.store(place, &next, 0)?;
    } else {
        let hop_limit: u8 = ctx.load(HOP_LIMIT_OFFSET)?;
        // No checksum of the header makes up for it.
        ctx.store(HOP_LIMIT_OFFSET, &hop_limit.wrapping_sub(1), BPF_F_RECOMPUTE_CSUM)?;
    }
    ctx.store(0, links, 0)
}

/// Hands a packet to the other side of a pod's interface as it is.
#[inline(always)]
pub fn to_peer(interface: u32) -> i32 {
    // SAFETY: the helper takes two numbers.
    unsafe { bpf_redirect_peer(interface, 0) as i32 }
}

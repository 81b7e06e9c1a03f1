//! What is done to packets: read, given to a pod, sent through the tunnel.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_tunnel_key},
    helpers::{bpf_redirect_peer, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
#[cfg(feature = "trial")]
use landbridge_bpf_maps::Planted;
use landbridge_bpf_maps::{Address, Direction, Endpoint, NodeNumber, Reason};
use landbridge_bpf_verdict::{
    Flow, Owners, Packet,
    packet::{CHECKSUM_OFFSET, TTL_OFFSET},
    parse,
};

use crate::events;
use crate::metrics::count;
use crate::tables::{Maps, zero};

/// A packet is for the machine itself (`linux/if_packet.h`).
const PACKET_HOST: u32 = 0;
const BPF_F_ZERO_CSUM_TX: u64 = 2;
/// Hops of the outer packet.
const TUNNEL_TTL: u8 = 64;

/// Leaves a packet to the programs after this one and to the stack.
pub const PASS: i32 = TC_ACT_UNSPEC;

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
            TC_ACT_SHOT as i32
        }
    }
}

/// The packet of a hook.
struct Frame<'a>(&'a TcContext);

impl Packet for Frame<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.load(offset).ok()
    }
}

/// Reads a packet. A function of its own in the kernel too, see `tables`. Returns the drop reason, 0 for none and
/// [`NOT_OURS`] for a packet that is the kernel's business.
#[inline(never)]
pub fn read_into(skb: *mut __sk_buff, place: &mut MaybeUninit<Flow>) -> u64 {
    match parse(&Frame(&TcContext::new(skb))) {
        Ok(Some(flow)) => {
            // Whichever protocol it was.
            let [zero, ..] = zero().to_ne_bytes();
            let mix = |[a, b]: [u8; 2]| [a | zero, b | zero];
            place.write(Flow {
                source_port: mix(flow.source_port),
                destination_port: mix(flow.destination_port),
                policy_port: mix(flow.policy_port),
                protocol: flow.protocol | zero,
                policy_protocol: flow.policy_protocol | zero,
                tcp_flags: flow.tcp_flags | zero,
                ..flow
            });
            0
        }
        Ok(None) => NOT_OURS,
        Err(reason) => u64::from(reason.0),
    }
}

/// No drop reason.
const NOT_OURS: u64 = 256;

/// Reads a packet; nothing for ARP.
#[inline(always)]
pub fn read(ctx: &TcContext) -> Result<Option<Flow>, Reason> {
    let mut flow = MaybeUninit::uninit();
    match read_into(ctx.skb.skb, &mut flow) {
        // SAFETY: it is written whenever there is no reason against it.
        0 => Ok(Some(unsafe { flow.assume_init() })),
        NOT_OURS => Ok(None),
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

/// Hands a packet to the pod's side of its interface, past the node's stack. Like the router that it does without, it
/// takes one from the time to live: that happens once on the whole way, here.
#[inline(always)]
pub fn deliver(ctx: &TcContext, flow: &Flow, endpoint: &Endpoint) -> Result<i32, Reason> {
    if flow.ttl <= 1 {
        return Err(Reason::TTL_EXCEEDED);
    }
    let ttl = flow.ttl - 1;
    let word = |ttl: u8| u64::from(u16::from_ne_bytes([ttl, 0]));
    let failed = |_| Reason::WRITE_FAILED;
    let checksum = CHECKSUM_OFFSET;
    #[cfg(feature = "trial")]
    let checksum = if crate::trial::planted(Planted::RefusedWrite) { checksum | 1 } else { checksum };
    accept(ctx)?;
    #[cfg(feature = "trial")]
    let ttl = if crate::trial::planted(Planted::ChecksumOffByOne) { ttl ^ 1 } else { ttl };
    ctx.l3_csum_replace(checksum, word(flow.ttl), word(ttl), 2).map_err(failed)?;
    ctx.store(TTL_OFFSET, &(flow.ttl - 1), 0).map_err(failed)?;
    let [a, b, c, d, e, f] = endpoint.mac;
    let [g, h, i, j, k, l] = endpoint.host_mac;
    ctx.store(0, &[a, b, c, d, e, f, g, h, i, j, k, l], 0).map_err(failed)?;
    // SAFETY: the helper takes two numbers.
    Ok(unsafe { bpf_redirect_peer(endpoint.interface, 0) } as i32)
}

/// Writes where the tunnel interface is to send the packet, and as whom.
#[inline(always)]
pub fn set_tunnel(ctx: &TcContext, to: NodeNumber, identity: u32) -> Result<(), Reason> {
    let Some(node) = Maps.node(to) else { return Err(Reason::NO_TUNNEL_ENDPOINT) };
    let Some(underlay) = node.underlay.ipv4() else { return Err(Reason::NO_TUNNEL_ENDPOINT) };
    let mut key = empty_tunnel_key();
    key.tunnel_id = identity;
    key.tunnel_ttl = TUNNEL_TTL;
    // The one address here that is in the machine's byte order.
    key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(underlay);
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key is whole, and its size is told.
    match unsafe { bpf_skb_set_tunnel_key(ctx.skb.skb, &mut key, size, BPF_F_ZERO_CSUM_TX) } {
        0 => Ok(()),
        _ => Err(Reason::WRITE_FAILED),
    }
}

/// The identity in a tunnel header, and the underlay address that it came from.
#[inline(always)]
pub fn tunnel(ctx: &TcContext) -> Result<(u32, Address), Reason> {
    let mut key = empty_tunnel_key();
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key is whole, and its size is told.
    if unsafe { bpf_skb_get_tunnel_key(ctx.skb.skb, &mut key, size, 0) } != 0 {
        #[cfg(feature = "trial")]
        if let Some(told) = crate::trial::tunnel(ctx) {
            return Ok(told);
        }
        return Err(Reason::INVALID_TUNNEL_KEY);
    }
    // SAFETY: all of the union was zero, and the kernel wrote an IPv4 address.
    let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
    Ok((key.tunnel_id, Address::from_ipv4(remote.to_be_bytes())))
}

#[inline(always)]
fn empty_tunnel_key() -> bpf_tunnel_key {
    // SAFETY: the type consists of numbers.
    unsafe { core::mem::zeroed() }
}

//! Headers of tunnels: where a packet is to go and as whom, where one came from and as whom.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_tunnel_key},
    helpers::{bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
use landbridge_bpf_maps::{Address, NodeNumber, Reason};
use landbridge_bpf_verdict::Owners;

use crate::tables::Maps;

/// The addresses of a key are those of IPv6.
const BPF_F_TUNINFO_IPV6: u64 = 1;
const BPF_F_ZERO_CSUM_TX: u64 = 2;
/// Hops of the outer packet.
const TUNNEL_TTL: u8 = 64;
/// By how many bytes an IPv6 header is longer than one of IPv4.
const LONGER_HEADER: u32 = 20;

/// Where a node is reached in the underlay.
///
/// # Errors
/// [`Reason::NO_TUNNEL_ENDPOINT`] if nobody has that number.
#[inline(always)]
pub fn underlay(node: NodeNumber) -> Result<Address, Reason> {
    match Maps.node(node) {
        Some(node) if !node.underlay.is_none() => Ok(node.underlay),
        _ => Err(Reason::NO_TUNNEL_ENDPOINT),
    }
}

/// The largest packet that fits in a tunnel to this underlay address, if `room` is the largest in one over IPv4.
#[inline(always)]
pub fn room_to(underlay: &Address, room: u32) -> u32 {
    if underlay.is_ipv4() { room } else { room.saturating_sub(LONGER_HEADER) }
}

/// Writes where the tunnel interface is to send the packet, and as whom.
#[inline(always)]
pub fn set_tunnel(ctx: &TcContext, underlay: &Address, identity: u32) -> Result<(), Reason> {
    match write_tunnel(ctx.skb.skb, underlay, identity) {
        0 => Ok(()),
        _ => Err(Reason::WRITE_FAILED),
    }
}

/// See [`set_tunnel`]. Known to the kernel by its name, see `tables`. Returns 0 unless it failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_tunnel(skb: *mut __sk_buff, underlay: *const Address, identity: u32) -> u64 {
    // SAFETY: it is null or whole.
    let Some(underlay) = (unsafe { underlay.as_ref() }) else { return 1 };
    let mut key = empty_tunnel_key();
    key.tunnel_id = identity;
    key.tunnel_ttl = TUNNEL_TTL;
    let flags = if let Some(underlay) = underlay.ipv4() {
        // The one address here that is in the machine's byte order.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(underlay);
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = underlay.words();
        // Over IPv6 nothing else protects the header (RFC 6935 allows to do without, and receivers to refuse that).
        BPF_F_TUNINFO_IPV6
    };
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key is whole, and its size is told.
    u64::from(unsafe { bpf_skb_set_tunnel_key(skb, &mut key, size, flags) } != 0)
}

/// What a tunnel says of a packet that came out of it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Tunnel {
    /// The underlay address that it begins at.
    pub begin: Address,
    /// Whom the packet claims to be from.
    pub identity: u32,
}

/// The tunnel that a packet came out of.
///
/// # Errors
/// [`Reason::INVALID_TUNNEL_KEY`] if it came out of none.
#[inline(always)]
pub fn tunnel(ctx: &TcContext) -> Result<Tunnel, Reason> {
    let mut tunnel = Tunnel::default();
    match read_tunnel(ctx.skb.skb, &mut tunnel) {
        0 => Ok(tunnel),
        _ => Err(Reason::INVALID_TUNNEL_KEY),
    }
}

/// See [`tunnel`]. Known to the kernel by its name, see `tables`. Returns 0 unless there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_tunnel(skb: *mut __sk_buff, place: *mut Tunnel) -> u64 {
    // SAFETY: it is null or whole, and nobody else has it.
    let Some(place) = (unsafe { place.as_mut() }) else { return 1 };
    let mut key = empty_tunnel_key();
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the key is whole, and its size is told.
    if unsafe { bpf_skb_get_tunnel_key(skb, &mut key, size, 0) } == 0 {
        // SAFETY: all of the union was zero, and the kernel wrote an IPv4 address.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        *place = Tunnel { begin: Address::from_ipv4(remote.to_be_bytes()), identity: key.tunnel_id };
        return 0;
    }
    // The kernel tells of a tunnel over IPv6 only whoever asks for one.
    // SAFETY: as above.
    if unsafe { bpf_skb_get_tunnel_key(skb, &mut key, size, BPF_F_TUNINFO_IPV6) } != 0 {
        #[cfg(feature = "trial")]
        if let Some((identity, begin)) = crate::trial::tunnel(&TcContext::new(skb)) {
            *place = Tunnel { begin, identity };
            return 0;
        }
        return 1;
    }
    // SAFETY: as above, with an IPv6 address.
    let remote = unsafe { key.__bindgen_anon_1.remote_ipv6 };
    *place = Tunnel { begin: Address::from_words(remote), identity: key.tunnel_id };
    0
}

#[inline(always)]
fn empty_tunnel_key() -> bpf_tunnel_key {
    // SAFETY: the type consists of numbers.
    unsafe { core::mem::zeroed() }
}

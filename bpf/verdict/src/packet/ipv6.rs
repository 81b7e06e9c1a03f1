//! Headers of IPv6 and its extensions (RFC 8200).

use landbridge_bpf_maps::{Address, Reason};

use super::{ETHERNET_LEN, Flow, Fragment, IPV6_LEN, Packet, first, second};

const WORDS: usize = IPV6_LEN / 4;
/// More extension headers than packets have that somebody means to be read.
const MAX_EXTENSIONS: u32 = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Reads the headers of a frame.
///
/// An address that is IPv4's, mapped, is refused: it would be taken for that of a packet of IPv4.
#[inline(always)]
pub(super) fn read<P: Packet + ?Sized>(packet: &P, flow: &mut Flow) -> Result<(), Reason> {
    const TRANSPORT: u32 = 54;
    const { assert!(TRANSPORT as usize == ETHERNET_LEN + IPV6_LEN) };
    let header: [u32; WORDS] = packet.words(ETHERNET_LEN).ok_or(Reason::INVALID_PACKET)?;
    (flow.source, flow.destination) = addresses(&header)?;
    [flow.protocol, flow.ttl] = second(header[1]);
    let zero = packet.zero();
    let [none, _, _, _] = zero.to_ne_bytes();
    flow.version = 6 | none;
    flow.fragment = Fragment(Fragment::WHOLE.0 | none);
    flow.identification = zero.to_ne_bytes();
    let [_, _, a, b] = (TRANSPORT | zero).to_be_bytes();
    flow.transport = u16::from_be_bytes([a, b]);
    if !is_extension(flow.protocol) {
        return Ok(());
    }
    match Reason(extensions(packet, flow)) {
        Reason::FORWARDED => Ok(()),
        reason => Err(reason),
    }
}

/// Reads the header that an error quotes into the connection of `flow`. Returns where the quoted transport begins; of a
/// packet with extensions only the addresses count.
#[inline(always)]
pub(super) fn read_quoted<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    flow: &mut Flow,
) -> Result<usize, Reason> {
    let header: [u32; WORDS] = packet.words(offset).ok_or(Reason::INVALID_PACKET)?;
    let (source, destination) = addresses(&header)?;
    if source != flow.destination {
        // An error is told to whom it concerns.
        return Err(Reason::INVALID_PACKET);
    }
    flow.origin = destination;
    [flow.protocol, _] = second(header[1]);
    Ok(offset + IPV6_LEN)
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Goes on to the transport header. Returns the drop reason, that of what is let through for none.
///
/// A function of its own in the kernel too: hardly any packet has extension headers.
#[inline(never)]
fn extensions<P: Packet + ?Sized>(packet: &P, flow: &mut Flow) -> u8 {
    let mut left = MAX_EXTENSIONS;
    while left > 0 && is_extension(flow.protocol) && flow.fragment != Fragment::LATER {
        left -= 1;
        let Some([begin, rest]) = packet.words(usize::from(flow.transport)) else {
            return Reason::INVALID_PACKET.0;
        };
        let [next, len] = first(begin);
        let [kind, segments_left] = second(begin);
        let mut units = u16::from(len);
        if flow.protocol == FRAGMENT {
            units = 0;
            let offset = u16::from_be_bytes([kind, segments_left]);
            if offset & 0xfff8 != 0 {
                flow.fragment = Fragment::LATER;
            } else if offset & 1 != 0 {
                flow.fragment = Fragment::FIRST;
            }
            flow.identification = rest.to_ne_bytes();
        } else if flow.protocol == ROUTING && segments_left != 0 {
            // It is for somebody else than it says.
            return Reason::INVALID_EXTENSION_HEADER.0;
        }
        // At most as many times as there are headers: far from what 16 bits hold.
        flow.transport = flow.transport.wrapping_add(8 + 8 * units);
        flow.protocol = next;
    }
    let is_done = flow.fragment == Fragment::LATER || !is_extension(flow.protocol);
    if is_done { Reason::FORWARDED.0 } else { Reason::INVALID_EXTENSION_HEADER.0 }
}

#[inline(always)]
fn addresses(header: &[u32; WORDS]) -> Result<(Address, Address), Reason> {
    let [begin, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let (source, destination) =
        (Address::from_words([s0, s1, s2, s3]), Address::from_words([d0, d1, d2, d3]));
    let is_valid = first(begin)[0] >> 4 == 6 && !source.is_ipv4() && !destination.is_ipv4();
    if is_valid { Ok((source, destination)) } else { Err(Reason::INVALID_PACKET) }
}

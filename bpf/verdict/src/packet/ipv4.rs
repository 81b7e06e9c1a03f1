//! Headers of IPv4 (RFC 791).

use landbridge_bpf_maps::{Address, Reason};

use super::{ETHERNET_LEN, Flow, Fragment, Packet, first, protocol, second};

/// Words of a header without options.
pub(super) const WORDS: usize = 5;

/// Reads the header of a frame. For `zero` see [`Packet::zero`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a header has 60 bytes at most")]
pub(super) fn read(header: &[u32; WORDS], zero: u32, flow: &mut Flow) -> Result<(), Reason> {
    let len = header_len(header).ok_or(Reason::INVALID_PACKET)?;
    (flow.source, flow.destination) = addresses(header, zero);
    [flow.ttl, flow.protocol] = first(header[2]);
    let [none, _, _, _] = zero.to_ne_bytes();
    flow.version = 4 | none;
    flow.fragment = Fragment(fragment(header).0 | none);
    flow.transport = (ETHERNET_LEN + len) as u16;
    let [a, b] = first(header[1]);
    flow.identification = [a, b, none, none];
    if flow.fragment == Fragment::LATER && flow.protocol == protocol::TCP && second(header[1])[1] == 1 {
        // The first one ends before the flags, or this one would replace them (RFC 1858, RFC 3128).
        return Err(Reason::INVALID_PACKET);
    }
    Ok(())
}

/// Time to live, protocol and checksum of a header, one word, after the next router (RFC 1624).
#[inline(always)]
#[must_use]
pub const fn one_hop_further(word: u32) -> u32 {
    let [ttl, protocol, a, b] = word.to_ne_bytes();
    // The time to live is the high half of its word of the sum.
    let (sum, carry) = u16::from_ne_bytes([a, b]).overflowing_add(u16::from_ne_bytes([1, 0]));
    let [a, b] = sum.wrapping_add((carry || sum == u16::MAX) as u16).to_ne_bytes();
    u32::from_ne_bytes([ttl.wrapping_sub(1), protocol, a, b])
}

/// Reads the header that an error quotes into the connection of `flow`. Returns where the quoted transport begins.
#[inline(always)]
pub(super) fn read_quoted<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    flow: &mut Flow,
) -> Result<usize, Reason> {
    let cut_off = Reason::INVALID_PACKET;
    let header: [u32; WORDS] = packet.words(offset).ok_or(cut_off)?;
    let len = header_len(&header).ok_or(cut_off)?;
    let (source, destination) = addresses(&header, packet.zero());
    if source != flow.destination {
        // An error is told to whom it concerns.
        return Err(Reason::INVALID_PACKET);
    }
    flow.origin = destination;
    // A later fragment begins with neither ports nor identifier, so it is nobody's.
    [_, flow.protocol] = if fragment(&header) == Fragment::LATER { [0; 2] } else { first(header[2]) };
    Ok(offset + len)
}

/// Length of a header in bytes.
#[inline(always)]
fn header_len(header: &[u32; WORDS]) -> Option<usize> {
    let [version_and_len, _] = first(header[0]);
    let len = usize::from(version_and_len & 0xf) * 4;
    (version_and_len >> 4 == 4 && len >= WORDS * 4).then_some(len)
}

/// Whether more fragments follow, or came before.
#[inline(always)]
fn fragment(header: &[u32; WORDS]) -> Fragment {
    let [flags, offset] = second(header[1]);
    if flags & 0x1f != 0 || offset != 0 {
        Fragment::LATER
    } else if flags & 0x20 != 0 {
        Fragment::FIRST
    } else {
        Fragment::WHOLE
    }
}

#[inline(always)]
fn addresses(header: &[u32; WORDS], zero: u32) -> (Address, Address) {
    let [_, _, _, source, destination] = *header;
    (mapped(source, zero), mapped(destination, zero))
}

#[inline(always)]
fn mapped(address: u32, zero: u32) -> Address {
    let [a, b, c] = Address::IPV4_PREFIX.map(|word| word | zero);
    Address::from_words([a, b, c, address])
}

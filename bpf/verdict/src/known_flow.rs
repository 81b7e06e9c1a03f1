//! Packets that go where the one before them went.
//!
//! ```text
//!  a packet ─► read: TCP or UDP, whole, nothing begins or ends with it? ─► its flow is known, and still true? ─► there it goes
//!                 │ no                                                       │ no
//!                 └──────────────── judged like any other ◄──────────────────┘
//!                                          └─► nothing new about it? ─► its flow is known from now on
//! ```
//!
//! Invariants:
//! - It makes no difference but in time: what is known of a flow is what its last packet was judged to be, by maps that have
//!   not changed since ([`GENERATION_LEN`](landbridge_bpf_maps::GENERATION_LEN)). Only that the same UDP ports call a backend by
//!   the name of a service from now on, as packets that no socket translated, is noticed late.
//! - A flow is known for a second at most. So what is remembered of its connection is as young as if each packet were judged,
//!   to within that second.
//! - A packet that changes what is remembered of a connection makes no flow known: those of one or two packets cost no more
//!   than without.

use landbridge_bpf_maps::{Address, FlowKey, KnownFlow};

use crate::admission::{Passage, REFRESH_INTERVAL};
use crate::packet::{ETHERNET_LEN, Flow, Fragment, IPV6_LEN, Packet, TYPE_IPV4, TYPE_IPV6, protocol, tcp};

/// How long a flow is known, nanoseconds.
pub const LIFETIME: u64 = REFRESH_INTERVAL;

/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;
const UDP_LEN: u16 = 8;

/// What there is to know of a packet besides its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// 4 or 6.
    pub version: u8,
    /// Bytes of its headers, Ethernet's included.
    pub len: u16,
}

/// Reads a packet into `key`, but for where it comes through, if its flow may be known: TCP or UDP in one piece, without
/// options of IP, that neither begins nor ends a connection and does not expire. Nothing of any other.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the headers before the transport have 54 bytes at most")]
pub fn read<P: Packet + ?Sized>(packet: &P, key: &mut FlowKey) -> Option<Headers> {
    // The end of the Ethernet header, and as much as every packet has.
    let [link, first, fragment, third]: [u32; 4] = packet.words(ETHERNET_LEN - 4)?;
    let [_, _, kind @ ..] = link.to_ne_bytes();
    let (version, ttl) = match kind {
        TYPE_IPV4 => {
            let [source, destination]: [u32; 2] = packet.words(ETHERNET_LEN + 12)?;
            let [version_and_len, ..] = first.to_ne_bytes();
            let [_, _, flags, offset] = fragment.to_ne_bytes();
            if version_and_len != 0x45 || flags & 0x3f != 0 || offset != 0 {
                return None;
            }
            let [a, b, c] = Address::IPV4_PREFIX;
            key.source = Address::from_words([a, b, c, source]);
            key.destination = Address::from_words([a, b, c, destination]);
            let [ttl, protocol, ..] = third.to_ne_bytes();
            key.protocol = protocol;
            (4, ttl)
        }
        TYPE_IPV6 => {
            let source: [u32; 4] = packet.words(ETHERNET_LEN + 8)?;
            let destination: [u32; 4] = packet.words(ETHERNET_LEN + 24)?;
            let [version, ..] = first.to_ne_bytes();
            if version >> 4 != 6 {
                return None;
            }
            key.source = Address::from_words(source);
            key.destination = Address::from_words(destination);
            let [_, _, next_header, hop_limit] = fragment.to_ne_bytes();
            key.protocol = next_header;
            (6, hop_limit)
        }
        _ => return None,
    };
    let at = ETHERNET_LEN + if version == 4 { IPV4_LEN } else { IPV6_LEN };
    let transport = read_transport(packet, at, key)?;
    if ttl > 1 { Some(Headers { version, len: at as u16 + transport }) } else { None }
}

/// Reads what is behind the IP header. Returns how long its own header is.
#[inline(always)]
fn read_transport<P: Packet + ?Sized>(packet: &P, at: usize, key: &mut FlowKey) -> Option<u16> {
    let (ports, len) = match key.protocol {
        protocol::TCP => {
            let [ports, _, _, flags]: [u32; 4] = packet.words(at)?;
            let [offset, flags, ..] = flags.to_ne_bytes();
            if !is_amid(flags) {
                return None;
            }
            (ports, u16::from(offset >> 4) * 4)
        }
        protocol::UDP => {
            let [ports, _]: [u32; 2] = packet.words(at)?;
            (ports, UDP_LEN)
        }
        _ => return None,
    };
    let [a, b, c, d] = ports.to_ne_bytes();
    (key.source_port, key.destination_port) = ([a, b], [c, d]);
    Some(len)
}

/// Whether a segment with these flags neither begins nor ends a connection.
#[inline(always)]
const fn is_amid(flags: u8) -> bool {
    flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) == tcp::ACK
}

/// Whether what is known of a flow counts at `now`, with the maps of this generation.
#[inline(always)]
#[must_use]
pub fn is_true(known: &KnownFlow, generation: u32, now: u64) -> bool {
    known.generation == generation && now < known.until
}

/// Whether the flow of a packet that passed is worth knowing: nothing about it was new.
#[inline(always)]
#[must_use]
pub fn is_worth_knowing(flow: &Flow, passage: Passage, generation: u32) -> bool {
    let is_settled = !passage.has(Passage::NEW) && !passage.has(Passage::NOTED);
    let is_plain = match flow.policy_protocol {
        // A refusal passes without a connection.
        protocol::TCP => is_amid(flow.tcp_flags),
        protocol::UDP => true,
        _ => false,
    } && flow.fragment == Fragment::WHOLE;
    is_settled && is_plain && generation & 1 == 0
}

/// The key of a packet's flow; for `hook` see [`FlowKey::hook`].
#[inline(always)]
#[must_use]
pub fn key_of(flow: &Flow, interface: u32, hook: u8) -> FlowKey {
    FlowKey {
        source: flow.source,
        destination: flow.destination,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        interface,
        protocol: flow.protocol,
        hook,
        reserved: [0; 2],
    }
}

#[cfg(test)]
mod tests;

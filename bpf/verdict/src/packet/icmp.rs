//! Messages of ICMP (RFC 792) and `ICMPv6` (RFC 4443).

use landbridge_bpf_maps::Reason;

use super::{Flow, Message, Packet, Scope, first, has_ports, ipv4, ipv6, protocol};

/// The protocol that tells of errors in a version of IP.
#[inline(always)]
pub(crate) const fn of_version(version: u8) -> u8 {
    if version == 4 { protocol::ICMP } else { protocol::ICMP6 }
}

/// Echo, timestamp, and their replies.
#[inline(always)]
const fn has_identifier(protocol: u8, kind: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(kind, 0 | 8 | 13 | 14),
        _ => matches!(kind, 128 | 129),
    }
}

/// Echo and timestamp.
#[inline(always)]
pub(super) const fn is_request(protocol: u8, kind: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(kind, 8 | 13),
        protocol::ICMP6 => kind == 128,
        _ => false,
    }
}

/// Destination unreachable, packet too big, time exceeded, parameter problem.
#[inline(always)]
pub(super) const fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(kind, 3 | 11 | 12),
        protocol::ICMP6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Multicast listener discovery, router and neighbour discovery, redirects (RFC 2710, 3810, 4861): said to a link.
#[inline(always)]
const fn is_of_link(protocol: u8, kind: u8) -> bool {
    protocol == protocol::ICMP6 && matches!(kind, 130..=137 | 143)
}

/// Reads a message.
#[inline(always)]
pub(super) fn read<P: Packet + ?Sized>(packet: &P, at: usize, flow: &mut Flow) -> Result<Scope, Reason> {
    let [kind, rest] = packet.words(at).ok_or(Reason::INVALID_PACKET)?;
    let [kind, _] = first(kind);
    if is_of_link(flow.protocol, kind) {
        return Ok(Scope::Link);
    }
    flow.policy_port[1] = kind;
    flow.message = Message::of(flow.protocol, kind);
    if has_identifier(flow.protocol, kind) {
        flow.source_port = first(rest);
        flow.destination_port = first(rest);
    } else if flow.is_error() {
        match Reason(read_quoted(packet, at + 8, flow)) {
            Reason::FORWARDED => {}
            reason => return Err(reason),
        }
    }
    Ok(Scope::Network)
}

/// Makes `flow` one of the connection whose packet an error quotes, from `offset` on. Returns the drop reason, that of what
/// is let through for none.
///
/// A function of its own in the kernel too, for its stack.
#[inline(never)]
fn read_quoted<P: Packet + ?Sized>(packet: &P, offset: usize, flow: &mut Flow) -> u8 {
    match try_read_quoted(packet, offset, flow) {
        Ok(()) => Reason::FORWARDED.0,
        Err(reason) => reason.0,
    }
}

#[inline(always)]
fn try_read_quoted<P: Packet + ?Sized>(packet: &P, offset: usize, flow: &mut Flow) -> Result<(), Reason> {
    let transport = if flow.version == 4 {
        ipv4::read_quoted(packet, offset, flow)?
    } else {
        ipv6::read_quoted(packet, offset, flow)?
    };
    // Both RFCs promise eight bytes of what is behind the header.
    let [begin, rest] = packet.words(transport).ok_or(Reason::INVALID_PACKET)?;
    if has_ports(flow.protocol) {
        flow.destination_port = first(begin);
        flow.source_port = super::second(begin);
    } else if flow.protocol == of_version(flow.version) && has_identifier(flow.protocol, first(begin)[0]) {
        flow.source_port = first(rest);
        flow.destination_port = first(rest);
    }
    Ok(())
}

//! What a pod says to its link: whose addresses it asks for and tells of (RFC 4861), which groups it listens to.
//!
//! Its only neighbour is the node. What it says of itself may reach the node's kernel; what only routers say, and what it
//! says of others, may not. Asked for the gateway, the node's program answers: the address is on another interface, so the
//! kernel would not.

use landbridge_bpf_maps::{Address, Reason};

use crate::packet::{ETHERNET_LEN, IPV6_LEN, Packet, TYPE_IPV6, protocol};

/// Where a message without extension headers begins.
const MESSAGE: usize = ETHERNET_LEN + IPV6_LEN;
/// Listener reports begin behind a hop-by-hop header of this size, with the router alert option.
const HOP_BY_HOP_LEN: usize = 8;
const HOP_BY_HOP: u8 = 0;

const LISTENERS: core::ops::RangeInclusive<u8> = 130..=132;
const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const LISTENER_REPORT_2: u8 = 143;

/// What becomes of what a pod says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The kernel may hear it.
    Pass,
    /// It asks for the gateway: tell this address.
    Asked(Address),
}

/// Judges a frame that [`parse`](crate::parse) found to be of the link. `is_own` says whether an address is the pod's.
///
/// # Errors
/// [`Reason::INVALID_SOURCE`] for what is said under, or of, another's address, [`Reason::FORBIDDEN_ICMP6`] for what pods
/// have no business saying, and [`Reason::INVALID_PACKET`].
#[inline(always)]
pub fn judge<P: Packet + ?Sized>(
    packet: &P,
    gateway: &Address,
    is_own: impl Fn(&Address) -> bool,
) -> Result<Heard, Reason> {
    let cut_off = Reason::INVALID_PACKET;
    let [kind] = packet.words(ETHERNET_LEN - 4).ok_or(cut_off)?;
    let [_, _, kind @ ..] = kind.to_ne_bytes();
    if kind != TYPE_IPV6 {
        return Ok(Heard::Pass);
    }
    let header: [u32; 6] = packet.words(ETHERNET_LEN).ok_or(cut_off)?;
    let [_, next, source @ ..] = header;
    let [_, _, next, _] = next.to_ne_bytes();
    let source = Address::from_words(source);
    let is_self = |address: &Address| is_link_local(address) || is_own(address);
    if !source.is_none() && !is_self(&source) {
        return Err(Reason::INVALID_SOURCE);
    }
    let begin = if next == HOP_BY_HOP { MESSAGE + HOP_BY_HOP_LEN } else { MESSAGE };
    let [message] = packet.words(begin).ok_or(cut_off)?;
    let [message, _, _, _] = message.to_ne_bytes();
    match (next, message) {
        (HOP_BY_HOP | protocol::ICMP6, LISTENER_REPORT_2) | (protocol::ICMP6, ROUTER_SOLICITATION) => {
            Ok(Heard::Pass)
        }
        (HOP_BY_HOP | protocol::ICMP6, kind) if LISTENERS.contains(&kind) => Ok(Heard::Pass),
        (protocol::ICMP6, SOLICITATION | ADVERTISEMENT) => {
            let target = Address::from_words(packet.words(MESSAGE + 8).ok_or(cut_off)?);
            match message {
                // From nobody it asks whether somebody has the address already.
                SOLICITATION if source.is_none() => Ok(Heard::Pass),
                SOLICITATION if target == *gateway => Ok(Heard::Asked(source)),
                SOLICITATION => Ok(Heard::Pass),
                _ if is_self(&target) => Ok(Heard::Pass),
                _ => Err(Reason::INVALID_SOURCE),
            }
        }
        _ => Err(Reason::FORBIDDEN_ICMP6),
    }
}

/// Whether an address is of `fe80::/10`.
#[inline(always)]
const fn is_link_local(address: &Address) -> bool {
    let Address([a, b, ..]) = address;
    *a == 0xfe && *b & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::packet::{Flow, Scope, parse};

    const fn at(prefix: u16, host: u8) -> Address {
        let [a, b] = prefix.to_be_bytes();
        Address([a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host])
    }

    const OWN: Address = at(0xfd10, 10);
    const OTHER: Address = at(0xfd10, 11);
    const GATEWAY: Address = at(0xfd10, 1);
    const LINK: Address = at(0xfe80, 10);
    const NOBODY: Address = Address([0; 16]);

    fn frame(source: Address, next: u8, message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(TYPE_IPV6);
        frame.extend([0x60, 0, 0, 0, 0, 0, next, 255]);
        frame.extend(source.0);
        frame.extend(at(0xff02, 1).0);
        frame.extend(message);
        frame
    }

    fn message(kind: u8, target: Address) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.0);
        message
    }

    fn heard(frame: &[u8]) -> Result<Heard, Reason> {
        assert_eq!(parse(frame, &mut Flow::default()), Ok(Scope::Link));
        judge(frame, &GATEWAY, |address| *address == OWN)
    }

    #[test]
    fn a_pod_says_only_what_is_its_to_say() {
        let (spoofed, forbidden) = (Err(Reason::INVALID_SOURCE), Err(Reason::FORBIDDEN_ICMP6));
        for (name, source, kind, target, expected) in [
            ("where is the gateway?", OWN, 135, GATEWAY, Ok(Heard::Asked(OWN))),
            ("the same from its link-local address", LINK, 135, GATEWAY, Ok(Heard::Asked(LINK))),
            ("has nobody my address?", NOBODY, 135, OWN, Ok(Heard::Pass)),
            ("where is somebody?", OWN, 135, OTHER, Ok(Heard::Pass)),
            ("where is the gateway, as another", OTHER, 135, GATEWAY, spoofed),
            ("I am here", OWN, 136, OWN, Ok(Heard::Pass)),
            ("my link-local address is here", OWN, 136, LINK, Ok(Heard::Pass)),
            ("another is here", OWN, 136, OTHER, spoofed),
            ("the gateway is here", LINK, 136, GATEWAY, spoofed),
            ("is there a router?", LINK, 133, NOBODY, Ok(Heard::Pass)),
            ("I am a router", LINK, 134, NOBODY, forbidden),
            ("go there instead", LINK, 137, OTHER, forbidden),
        ] {
            assert_eq!(heard(&frame(source, 58, &message(kind, target))), expected, "{name}");
        }
        let arp = [&[0; 12][..], &[8, 6], &[0; 28]].concat();
        assert_eq!(heard(&arp), Ok(Heard::Pass));
        assert_eq!(heard(&frame(OWN, 58, &[135, 0, 0, 0, 0, 0, 0, 0])), Err(Reason::INVALID_PACKET));
    }

    #[test]
    fn listeners_report_behind_a_router_alert_and_nothing_else_does() {
        let behind = |kind: u8| {
            let mut bytes = vec![58, 0, 5, 2, 0, 0, 1, 0];
            bytes.extend(message(kind, OWN));
            frame(LINK, HOP_BY_HOP, &bytes)
        };
        for kind in [130, 131, 132, 143] {
            assert_eq!(heard(&behind(kind)), Ok(Heard::Pass), "{kind}");
        }
        for kind in 133..=137 {
            assert_eq!(heard(&behind(kind)), Err(Reason::FORBIDDEN_ICMP6), "{kind}");
        }
    }
}

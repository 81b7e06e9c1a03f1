//! What a packet is: read from its Ethernet, IPv4 and transport headers.

use landbridge_bpf_maps::{Address, ConnectionKey, Direction, Reason};

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Where the time to live of an IPv4 packet is in its frame.
pub const TTL_OFFSET: usize = ETHERNET_LEN + 8;
/// Where the checksum of the IPv4 header is.
pub const CHECKSUM_OFFSET: usize = ETHERNET_LEN + 10;

/// IP protocol numbers.
pub mod protocol {
    #![expect(missing_docs, reason = "the names say it")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const SCTP: u8 = 132;
}

/// Flags of a TCP header (RFC 9293, section 3.1).
pub mod tcp {
    #![expect(missing_docs, reason = "the names say it")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Words of an IPv4 header without options.
const IPV4_WORDS: usize = 5;

/// A frame that can be read.
pub trait Packet {
    /// `N` words of four bytes from `offset` on, each in the machine's byte order; nothing if the frame ends before.
    ///
    /// Words, since the kernel's virtual machine reads bytes one by one.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
}

/// What is decided about: who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sent the packet.
    pub source: Address,
    /// Who it is for.
    pub destination: Address,
    /// The other side of the connection that it belongs to: `source`, but of an ICMP error, which a router may have sent,
    /// who could not be reached.
    pub origin: Address,
    /// Port at `origin`, network byte order; of an ICMP echo its identifier, 0 if the protocol has none.
    pub source_port: [u8; 2],
    /// Port at `destination`, likewise.
    pub destination_port: [u8; 2],
    /// What rules take for the port: of TCP, UDP and SCTP the destination port, of ICMP the type.
    pub policy_port: [u8; 2],
    /// IP protocol number of the connection. Of an ICMP error that of the packet that it tells of.
    pub protocol: u8,
    /// IP protocol number of the packet itself.
    pub policy_protocol: u8,
    /// Flags of a TCP header, otherwise 0.
    pub tcp_flags: u8,
    /// Routers that it may still pass.
    pub ttl: u8,
}

impl Flow {
    /// Whether it is an ICMP error, which tells of a connection without being part of it.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        let [_, kind] = self.policy_port;
        self.policy_protocol == protocol::ICMP && is_error(kind)
    }

    /// Whether it is an ICMP request, which has the identifier of its replies but is none.
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        let [_, kind] = self.policy_port;
        self.policy_protocol == protocol::ICMP && is_request(kind)
    }

    /// The connection that this packet would begin, at the endpoint with this tag that sees it in `direction`.
    #[inline(always)]
    pub fn connection(&self, direction: Direction, endpoint: u16) -> ConnectionKey {
        ConnectionKey {
            source: self.origin,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            direction: direction as u8,
            endpoint,
        }
    }

    /// The connection that this packet would be a reply of, likewise.
    #[inline(always)]
    pub fn answered_connection(&self, direction: Direction, endpoint: u16) -> ConnectionKey {
        ConnectionKey {
            source: self.destination,
            destination: self.origin,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            direction: direction.opposite() as u8,
            endpoint,
        }
    }
}

/// Reads a frame. Nothing for ARP, which is the kernel's business.
///
/// # Errors
/// Why the frame has to be dropped.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Result<Option<Flow>, Reason> {
    let cut_off = Reason::INVALID_PACKET;
    // The end of the Ethernet header and an IPv4 header without options.
    let [link, header @ ..]: [u32; 1 + IPV4_WORDS] = packet.words(ETHERNET_LEN - 4).ok_or(cut_off)?;
    let kind = second(link);
    if kind == TYPE_ARP {
        return Ok(None);
    }
    if kind != TYPE_IPV4 {
        return Err(Reason::UNSUPPORTED_PROTOCOL);
    }
    let transport = ETHERNET_LEN + header_len(&header).ok_or(cut_off)?;
    if is_fragment(&header) {
        return Err(Reason::FRAGMENT_UNSUPPORTED);
    }
    let (source, destination) = addresses(&header);
    let [ttl, protocol] = first(header[2]);
    let mut flow = Flow {
        source,
        destination,
        origin: source,
        source_port: [0; 2],
        destination_port: [0; 2],
        policy_port: [0; 2],
        protocol,
        policy_protocol: protocol,
        tcp_flags: 0,
        ttl,
    };
    if has_ports(protocol) {
        let [ports] = packet.words(transport).ok_or(cut_off)?;
        flow.source_port = first(ports);
        flow.destination_port = second(ports);
        flow.policy_port = flow.destination_port;
        if protocol == protocol::TCP {
            let [flags] = packet.words(transport + 12).ok_or(cut_off)?;
            [_, flow.tcp_flags] = first(flags);
        }
    } else if protocol == protocol::ICMP {
        let [kind, rest] = packet.words(transport).ok_or(cut_off)?;
        let [kind, _] = first(kind);
        flow.policy_port = [0, kind];
        if has_identifier(kind) {
            flow.source_port = first(rest);
            flow.destination_port = first(rest);
        } else if is_error(kind) {
            read_quoted(packet, transport + 8, &mut flow)?;
        }
    }
    Ok(Some(flow))
}

/// Makes `flow` one of the connection whose packet an ICMP error quotes, from `offset` on (RFC 792).
#[inline(always)]
fn read_quoted<P: Packet + ?Sized>(packet: &P, offset: usize, flow: &mut Flow) -> Result<(), Reason> {
    let cut_off = Reason::INVALID_PACKET;
    let header: [u32; IPV4_WORDS] = packet.words(offset).ok_or(cut_off)?;
    let transport = offset + header_len(&header).ok_or(cut_off)?;
    let (source, destination) = addresses(&header);
    if source != flow.destination {
        // An error is told to whom it concerns.
        return Err(Reason::INVALID_PACKET);
    }
    flow.origin = destination;
    [_, flow.protocol] = first(header[2]);
    // RFC 792 promises eight bytes.
    let [begin, rest] = packet.words(transport).ok_or(cut_off)?;
    if has_ports(flow.protocol) {
        flow.destination_port = first(begin);
        flow.source_port = second(begin);
    } else if flow.protocol == protocol::ICMP && has_identifier(first(begin)[0]) {
        flow.source_port = first(rest);
        flow.destination_port = first(rest);
    }
    Ok(())
}

/// The first two bytes of a word as they are in the packet.
#[inline(always)]
fn first(word: u32) -> [u8; 2] {
    let [a, b, _, _] = word.to_ne_bytes();
    [a, b]
}

/// The last two.
#[inline(always)]
fn second(word: u32) -> [u8; 2] {
    let [_, _, a, b] = word.to_ne_bytes();
    [a, b]
}

/// Length of an IPv4 header in bytes.
#[inline(always)]
fn header_len(header: &[u32; IPV4_WORDS]) -> Option<usize> {
    let [version_and_len, _] = first(header[0]);
    let len = usize::from(version_and_len & 0xf) * 4;
    (version_and_len >> 4 == 4 && len >= IPV4_WORDS * 4).then_some(len)
}

/// Whether more fragments follow, or came before.
#[inline(always)]
fn is_fragment(header: &[u32; IPV4_WORDS]) -> bool {
    let [flags, offset] = second(header[1]);
    flags & 0x3f != 0 || offset != 0
}

#[inline(always)]
fn addresses(header: &[u32; IPV4_WORDS]) -> (Address, Address) {
    let [_, _, _, source, destination] = *header;
    (Address::from_ipv4(source.to_ne_bytes()), Address::from_ipv4(destination.to_ne_bytes()))
}

#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    protocol == protocol::TCP || protocol == protocol::UDP || protocol == protocol::SCTP
}

/// Echo, timestamp, and their replies.
#[inline(always)]
fn has_identifier(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13 | 14)
}

/// Echo and timestamp.
#[inline(always)]
fn is_request(kind: u8) -> bool {
    matches!(kind, 8 | 13)
}

/// Destination unreachable, time exceeded, parameter problem.
#[inline(always)]
fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 11 | 12)
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::tables::v4;

    const A: [u8; 4] = [10, 1, 1, 10];
    const B: [u8; 4] = [10, 2, 1, 10];
    const ROUTER: [u8; 4] = [10, 2, 1, 1];

    fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options * 4];
        packet[0] = 0x45 + u8::try_from(options).unwrap();
        packet[8] = 63;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet.extend(payload);
        packet
    }

    fn frame(packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(packet);
        frame
    }

    fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[0..2].copy_from_slice(&source.to_be_bytes());
        header[2..4].copy_from_slice(&destination.to_be_bytes());
        header[13] = flags;
        header
    }

    fn flow(packet: &[u8]) -> Flow {
        parse(&frame(packet)[..]).unwrap().unwrap()
    }

    #[test]
    fn tcp_has_ports_and_flags_behind_options_too() {
        for options in [0, 1, 10] {
            let flow = flow(&ipv4(A, B, 6, options, &tcp(40_000, 443, tcp::SYN)));
            assert_eq!((flow.source, flow.destination, flow.origin), (v4(A), v4(B), v4(A)));
            assert_eq!((flow.source_port, flow.destination_port), (40_000u16.to_be_bytes(), [1, 187]));
            assert_eq!(
                (flow.policy_port, flow.protocol, flow.tcp_flags, flow.ttl),
                ([1, 187], 6, tcp::SYN, 63)
            );
            assert!(!flow.is_error());
        }
    }

    #[test]
    fn an_echo_and_its_reply_are_one_connection() {
        let request = flow(&ipv4(A, B, 1, 0, &[8, 0, 0, 0, 7, 9, 0, 1]));
        let reply = flow(&ipv4(B, A, 1, 0, &[0, 0, 0, 0, 7, 9, 0, 1]));
        assert_eq!(
            request.connection(Direction::Egress, 1),
            reply.answered_connection(Direction::Ingress, 1)
        );
        assert_eq!((request.policy_port, reply.policy_port), ([0, 8], [0, 0]));
    }

    #[test]
    fn an_error_belongs_to_the_connection_that_it_quotes() {
        let sent = ipv4(A, B, 6, 0, &tcp(40_000, 443, tcp::ACK));
        let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0];
        error.extend(&sent[..28]);
        let error = flow(&ipv4(ROUTER, A, 1, 0, &error));
        assert!(error.is_error());
        assert_eq!((error.source, error.origin), (v4(ROUTER), v4(B)));
        assert_eq!((error.policy_protocol, error.policy_port), (1, [0, 3]));
        let sent = flow(&sent);
        assert_eq!(error.answered_connection(Direction::Ingress, 1), sent.connection(Direction::Egress, 1));

        let mut misdirected = vec![3, 4, 0, 0, 0, 0, 5, 0];
        misdirected.extend(ipv4(B, A, 6, 0, &tcp(1, 2, 0)));
        let outcome = parse(&frame(&ipv4(ROUTER, A, 1, 0, &misdirected))[..]);
        assert_eq!(outcome, Err(Reason::INVALID_PACKET));
    }

    #[test]
    fn what_cannot_be_judged_is_refused_with_its_reason() {
        let whole = ipv4(A, B, 17, 0, &[0, 53, 0, 53]);
        let with = |place: usize, byte: u8| {
            let mut packet = whole.clone();
            packet[place] = byte;
            parse(&frame(&packet)[..])
        };
        assert_eq!(with(6, 0x20), Err(Reason::FRAGMENT_UNSUPPORTED), "the first of many");
        assert_eq!(with(7, 1), Err(Reason::FRAGMENT_UNSUPPORTED), "a later one");
        assert!(with(6, 0x40).is_ok(), "do not fragment");
        assert_eq!(with(0, 0x44), Err(Reason::INVALID_PACKET), "a header of 16 bytes");
        assert_eq!(with(0, 0x65), Err(Reason::INVALID_PACKET), "version 6 in a frame of version 4");
        assert_eq!(with(0, 0x4f), Err(Reason::INVALID_PACKET), "ports behind the end");
        let mut ipv6 = frame(&whole);
        ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(parse(&ipv6[..]), Err(Reason::UNSUPPORTED_PROTOCOL));
        ipv6[12..14].copy_from_slice(&TYPE_ARP);
        assert_eq!(parse(&ipv6[..]), Ok(None));
    }

    proptest! {
        /// Whatever arrives, reading it ends, and a cut frame never reads as something else than the whole.
        #[test]
        fn any_bytes_can_be_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..120) {
            if bytes.len() > 23 {
                bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            }
            let whole = parse(&bytes[..]);
            bytes.truncate(cut);
            let part = parse(&bytes[..]);
            prop_assert!(part == whole || part == Err(Reason::INVALID_PACKET));
        }
    }
}

//! Frames of both versions, whole, in pieces and hostile.

use std::vec;
use std::vec::Vec;

use landbridge_bpf_maps::{Address, Direction};
use proptest::prelude::*;

use super::*;
use crate::tables::v4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    Flow(Flow),
    Link,
}

fn parse(frame: &[u8]) -> Result<Parsed, Reason> {
    let mut flow = Flow::default();
    Ok(match super::parse(frame, &mut flow)? {
        Scope::Network => Parsed::Flow(flow),
        Scope::Link => Parsed::Link,
    })
}

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

fn frame6(packet: &[u8]) -> Vec<u8> {
    let mut frame = frame(packet);
    frame[12..14].copy_from_slice(&TYPE_IPV6);
    frame
}

fn of(parsed: Result<Parsed, Reason>) -> Flow {
    match parsed {
        Ok(Parsed::Flow(flow)) => flow,
        other => panic!("{other:?}"),
    }
}

fn flow(packet: &[u8]) -> Flow {
    of(parse(&frame(packet)[..]))
}

fn flow6(packet: &[u8]) -> Flow {
    of(parse(&frame6(packet)[..]))
}

const A6: [u8; 16] = [0xfd, 0x10, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
const B6: [u8; 16] = [0xfd, 0x10, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
const ROUTER6: [u8; 16] = [0xfd, 0x10, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn ipv6(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 63]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// A transport header behind extension headers: of each its number and how many units of eight bytes it has beyond one.
fn extended(headers: &[(u8, u8)], protocol: u8, transport: &[u8]) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (place, (number, len)) in headers.iter().enumerate() {
        let next = headers.get(place + 1).map_or(protocol, |(number, _)| *number);
        let mut header = vec![0; if *number == 44 { 8 } else { 8 + 8 * usize::from(*len) }];
        header[0] = next;
        header[1] = *len;
        bytes.extend(header);
    }
    bytes.extend(transport);
    (headers.first().map_or(protocol, |(number, _)| *number), bytes)
}

/// A fragment header: `offset` in units of eight bytes.
fn fragment6(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
    bytes.extend([1, 2, 3, 4]);
    bytes.extend(payload);
    bytes
}

#[test]
fn tcp_has_ports_and_flags_behind_options_too() {
    for options in [0, 1, 10] {
        let flow = flow(&ipv4(A, B, 6, options, &tcp(40_000, 443, tcp::SYN)));
        assert_eq!((flow.source, flow.destination, flow.origin), (v4(A), v4(B), v4(A)));
        assert_eq!((flow.source_port, flow.destination_port), (40_000u16.to_be_bytes(), [1, 187]));
        assert_eq!((flow.policy_port, flow.protocol, flow.tcp_flags, flow.ttl), ([1, 187], 6, tcp::SYN, 63));
        assert!(!flow.is_error());
    }
}

#[test]
fn an_echo_and_its_reply_are_one_connection() {
    let request = flow(&ipv4(A, B, 1, 0, &[8, 0, 0, 0, 7, 9, 0, 1]));
    let reply = flow(&ipv4(B, A, 1, 0, &[0, 0, 0, 0, 7, 9, 0, 1]));
    assert_eq!(request.connection(Direction::Egress, 1), reply.answered_connection(Direction::Ingress, 1));
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
    let whole = ipv4(A, B, 17, 0, &[0, 53, 0, 53, 0, 8, 0, 0]);
    let with = |place: usize, byte: u8| {
        let mut packet = whole.clone();
        packet[place] = byte;
        parse(&frame(&packet)[..])
    };
    assert!(with(6, 0x40).is_ok(), "do not fragment");
    assert_eq!(with(9, protocol::SCTP), Err(Reason::UNKNOWN_TRANSPORT));
    assert_eq!(with(9, protocol::ICMP6), Err(Reason::UNKNOWN_TRANSPORT), "of the other version");
    assert_eq!(with(9, 47), Err(Reason::UNKNOWN_TRANSPORT));
    assert_eq!(with(0, 0x44), Err(Reason::INVALID_PACKET), "a header of 16 bytes");
    assert_eq!(with(0, 0x65), Err(Reason::INVALID_PACKET), "version 6 in a frame of version 4");
    assert_eq!(with(0, 0x4f), Err(Reason::INVALID_PACKET), "ports behind the end");
    let mut ipv6 = frame(&whole);
    ipv6[12..14].copy_from_slice(&TYPE_IPV6);
    assert_eq!(parse(&ipv6[..]), Err(Reason::INVALID_PACKET), "version 4 in a frame of version 6");
    ipv6[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(parse(&ipv6[..]), Err(Reason::UNSUPPORTED_PROTOCOL), "a VLAN");
    ipv6[12..14].copy_from_slice(&TYPE_ARP);
    assert_eq!(parse(&ipv6[..]), Ok(Parsed::Link));
}

#[test]
fn pieces_of_a_datagram_know_each_other() {
    let piece = |offset: u16, more: bool, protocol: u8, payload: &[u8]| {
        let mut packet = ipv4(A, B, protocol, 0, payload);
        packet[4..6].copy_from_slice(&[7, 9]);
        packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        parse(&frame(&packet)[..])
    };
    let first = of(piece(0, true, 17, &[0, 53, 0, 54, 0, 0, 0, 0]));
    let later = of(piece(185, false, 17, b"what is left"));
    assert_eq!((first.fragment, later.fragment), (Fragment::FIRST, Fragment::LATER));
    assert_eq!((first.identification, later.identification), ([7, 9, 0, 0], [7, 9, 0, 0]));
    assert_eq!((first.destination_port, later.destination_port), ([0, 54], [0, 0]));
    assert_eq!(later.protocol, first.protocol);
    // The flags of TCP are in the first piece, or it is refused.
    assert_eq!(piece(0, true, 6, &tcp(1, 2, tcp::SYN)[..8]), Err(Reason::INVALID_PACKET));
    assert_eq!(piece(1, false, 6, &tcp(1, 2, tcp::SYN)), Err(Reason::INVALID_PACKET));
    assert_eq!(piece(2, false, 47, &[0; 8]), Err(Reason::UNKNOWN_TRANSPORT));

    let first = flow6(&ipv6(A6, B6, 44, &fragment6(17, 0, true, &[0, 53, 0, 54, 0, 0, 0, 0])));
    let later = flow6(&ipv6(A6, B6, 44, &fragment6(17, 2, false, &[0xff; 3])));
    let whole = flow6(&ipv6(A6, B6, 44, &fragment6(17, 0, false, &[0, 53, 0, 54, 0, 0, 0, 0])));
    assert_eq!(
        (first.fragment, first.identification, first.source_port),
        (Fragment::FIRST, [1, 2, 3, 4], [0, 53])
    );
    assert_eq!((later.fragment, later.identification, later.protocol), (Fragment::LATER, [1, 2, 3, 4], 17));
    assert_eq!((whole.fragment, whole.destination_port, whole.transport), (Fragment::WHOLE, [0, 54], 62));
}

#[test]
fn no_packet_of_tcp_asks_and_ends_at_once() {
    for flags in 0..=u8::MAX {
        let parsed = parse(&frame(&ipv4(A, B, 6, 0, &tcp(1, 2, flags)))[..]);
        let (syn, fin) = (flags & tcp::SYN != 0, flags & tcp::FIN != 0);
        let (rst, ack) = (flags & tcp::RST != 0, flags & tcp::ACK != 0);
        let urgent = flags & tcp::URG != 0;
        let contradicts = [syn, fin, rst].iter().filter(|flag| **flag).count() > 1;
        // A refusal has nothing urgent, an answer has nothing at all.
        let is_possible = !contradicts && (syn || rst || ack) && !(urgent && (rst || syn && ack));
        assert_eq!(parsed.is_ok(), is_possible, "{flags:#x}");
        assert!(is_possible || parsed == Err(Reason::INVALID_CONNECTION));
    }
}

#[test]
fn version_6_is_read_like_version_4() {
    let request = flow6(&ipv6(A6, B6, 6, &tcp(40_000, 443, tcp::SYN)));
    assert_eq!((request.source, request.destination), (Address(A6), Address(B6)));
    assert_eq!((request.source_port, request.policy_port), (40_000u16.to_be_bytes(), [1, 187]));
    assert_eq!((request.version, request.ttl, request.tcp_flags, request.transport), (6, 63, tcp::SYN, 54));

    let echo = |from, to, kind| flow6(&ipv6(from, to, 58, &[kind, 0, 0, 0, 7, 9, 0, 1]));
    let (request, reply) = (echo(A6, B6, 128), echo(B6, A6, 129));
    assert!(request.is_request() && !reply.is_request());
    assert_eq!(request.connection(Direction::Egress, 1), reply.answered_connection(Direction::Ingress, 1));

    let sent = ipv6(A6, B6, 6, &tcp(40_000, 443, tcp::ACK));
    for kind in 1..=4 {
        let mut error = vec![kind, 0, 0, 0, 0, 0, 5, 0];
        error.extend(&sent[..48]);
        let error = flow6(&ipv6(ROUTER6, A6, 58, &error));
        assert!(error.is_error());
        assert_eq!((error.source, error.origin), (Address(ROUTER6), Address(B6)));
        let sent = flow6(&sent);
        assert_eq!(error.answered_connection(Direction::Ingress, 1), sent.connection(Direction::Egress, 1));
    }
}

#[test]
fn extension_headers_are_passed_up_to_a_bound() {
    let with = |headers: &[(u8, u8)], protocol, transport: &[u8]| {
        let (next, payload) = extended(headers, protocol, transport);
        parse(&frame6(&ipv6(A6, B6, next, &payload))[..])
    };
    for headers in [&[(0, 0)][..], &[(0, 2), (60, 1), (43, 0), (60, 31)], &[(60, 0); 6]] {
        let flow = of(with(headers, 6, &tcp(1, 2, tcp::SYN)));
        assert_eq!((flow.protocol, flow.destination_port), (6, [0, 2]), "{headers:?}");
    }
    let too_many = with(&[(60, 0); 7], 6, &tcp(1, 2, tcp::SYN));
    assert_eq!(too_many, Err(Reason::INVALID_EXTENSION_HEADER));
    assert_eq!(
        with(&[(60, 200)], 6, &tcp(1, 2, tcp::SYN)[..0]),
        Err(Reason::INVALID_PACKET),
        "behind the end"
    );
    assert_eq!(with(&[(0, 0)], protocol::SCTP, &[0; 20]), Err(Reason::UNKNOWN_TRANSPORT));
    assert_eq!(with(&[], 59, &[]), Err(Reason::UNKNOWN_TRANSPORT), "nothing at all");
    // Somebody else is meant.
    let mut routed = vec![6, 0, 4, 1, 0, 0, 0, 0];
    routed.extend(tcp(1, 2, tcp::SYN));
    assert_eq!(parse(&frame6(&ipv6(A6, B6, 43, &routed))[..]), Err(Reason::INVALID_EXTENSION_HEADER));
    // Which transport is behind the options of its first piece no later one says.
    let later = with(&[(60, 0)], 44, &fragment6(60, 5, true, &[0; 2]));
    assert_eq!(later, Err(Reason::UNKNOWN_TRANSPORT));
}

#[test]
fn an_address_of_version_4_is_none_of_version_6() {
    let mut mapped = [0; 16];
    mapped[10..12].copy_from_slice(&[0xff, 0xff]);
    mapped[12..].copy_from_slice(&A);
    for (source, destination) in [(mapped, B6), (B6, mapped)] {
        let parsed = parse(&frame6(&ipv6(source, destination, 17, &[0; 8]))[..]);
        assert_eq!(parsed, Err(Reason::INVALID_PACKET));
    }
}

#[test]
fn neighbour_discovery_is_of_the_link() {
    for kind in (130..=137).chain([143]) {
        let parsed = parse(&frame6(&ipv6(A6, B6, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]))[..]);
        assert_eq!(parsed, Ok(Parsed::Link), "{kind}");
    }
}

proptest! {
    /// Whatever arrives, reading it ends, and a cut frame never reads as something else than the whole.
    #[test]
    fn any_bytes_can_be_read(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..160), cut in 0usize..160,
        begin in prop_oneof![Just([8, 0, 0x45]), Just([0x86, 0xdd, 0x60])],
        next in prop_oneof![Just(0u8), Just(6), Just(17), Just(43), Just(44), Just(58), Just(60), any::<u8>()],
    ) {
        if bytes.len() > 23 {
            bytes[12..15].copy_from_slice(&begin);
            bytes[if begin[0] == 8 { 23 } else { 20 }] = next;
        }
        let whole = parse(&bytes[..]);
        bytes.truncate(cut);
        let part = parse(&bytes[..]);
        prop_assert!(part == whole || part == Err(Reason::INVALID_PACKET));
    }
}

use std::vec;
use std::vec::Vec;

use landbridge_bpf_maps::Hook;
use proptest::prelude::*;

use super::*;
use crate::packet::{Message, Scope, parse};

const INTERFACE: u32 = 7;
const HOOK: u8 = Hook::Pod as u8;

/// Frames that are nearly such as are known: each byte that matters is mostly right.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let mostly = |right: u8| prop_oneof![9 => Just(right), 1 => any::<u8>()];
    let kind = prop_oneof![4 => Just(TYPE_IPV4), 4 => Just(TYPE_IPV6), 1 => any::<[u8; 2]>()];
    let protocol = prop_oneof![4 => Just(protocol::TCP), 4 => Just(protocol::UDP), 1 => any::<u8>()];
    let flags = prop_oneof![4 => Just(tcp::ACK), 1 => any::<u8>()];
    let ttl = prop_oneof![4 => 2u8.., 1 => 0u8..2];
    let noise = proptest::collection::vec(any::<u8>(), 0..120);
    let fields = (kind, mostly(0x45), mostly(0), mostly(0x40), protocol, flags, ttl, mostly(0x50));
    (fields, noise).prop_map(|((kind, version, offset, pieces, protocol, flags, ttl, data), noise)| {
        let mut frame = vec![0; 12];
        frame.extend(kind);
        frame.extend(noise);
        let is_ipv4 = kind == TYPE_IPV4;
        let transport = ETHERNET_LEN + if is_ipv4 { IPV4_LEN } else { IPV6_LEN };
        let ipv4 = [(0, version), (6, pieces), (7, offset), (8, ttl), (9, protocol)];
        let ipv6 = [(0, version & 0xf | 0x60), (6, protocol), (7, ttl)];
        let header = if is_ipv4 { &ipv4[..] } else { &ipv6[..] };
        let header = header.iter().map(|(place, byte)| (ETHERNET_LEN + place, *byte));
        for (place, byte) in header.chain([(transport + 12, data), (transport + 13, flags)]) {
            if let Some(at) = frame.get_mut(place) {
                *at = byte;
            }
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// A packet whose flow may be known is one that would be judged, and its flow is the one that would be judged.
    #[test]
    fn what_may_be_known_is_what_would_be_judged(frame in frames()) {
        let mut key = FlowKey { interface: INTERFACE, hook: HOOK, ..FlowKey::default() };
        let mut flow = Flow::default();
        let headers = read(&frame[..], &mut key);
        let scope = parse(&frame[..], &mut flow);
        let plain_tcp = flow.policy_protocol != protocol::TCP
            || flow.tcp_flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) == tcp::ACK;
        let has_options = matches!(flow.version, 4) && flow.transport != 34 || flow.version == 6 && flow.transport != 54;
        let may_be_known = scope == Ok(Scope::Network)
            && matches!(flow.policy_protocol, protocol::TCP | protocol::UDP)
            && flow.fragment == Fragment::WHOLE
            && plain_tcp
            && !has_options
            && flow.ttl > 1;
        prop_assert_eq!(headers.is_some(), may_be_known);
        if let Some(headers) = headers {
            prop_assert_eq!(key, key_of(&flow, INTERFACE, HOOK));
            prop_assert_eq!(headers.version, flow.version);
            let transport = if key.protocol == protocol::UDP {
                8
            } else {
                u16::from(frame[usize::from(flow.transport) + 12] >> 4) * 4
            };
            prop_assert_eq!(headers.len, flow.transport + transport);
        }
    }
}

#[test]
fn a_flow_is_known_for_as_long_as_the_maps_stay_the_same_and_for_a_second_at_most() {
    let known = KnownFlow { until: 100, generation: 4, ..KnownFlow::default() };
    for (generation, now, expected) in [(4, 99, true), (4, 100, false), (5, 99, false), (6, 99, false)] {
        assert_eq!(is_true(&known, generation, now), expected, "{generation} {now}");
    }
}

#[test]
fn only_a_packet_that_is_nothing_new_makes_its_flow_known() {
    let segment = Flow {
        protocol: protocol::TCP,
        policy_protocol: protocol::TCP,
        tcp_flags: tcp::ACK,
        ..Flow::default()
    };
    let refusal = Flow { tcp_flags: tcp::RST | tcp::ACK, ..segment };
    let icmp = Flow { protocol: protocol::ICMP, policy_protocol: protocol::ICMP, ..Flow::default() };
    let error = Flow { message: Message::ERROR, policy_protocol: protocol::ICMP, tcp_flags: 0, ..segment };
    let piece = Flow { fragment: Fragment::FIRST, ..segment };
    let (settled, even) = (Passage::default(), 2);
    for (name, flow, passage, generation, expected) in [
        ("one of many", segment, settled, even, true),
        ("a reply of many", segment, Passage::REPLY, even, true),
        ("the first one", segment, Passage::NEW.and(Passage::NOTED), even, false),
        ("the first answer", segment, Passage::REPLY.and(Passage::NOTED), even, false),
        ("while the maps change", segment, settled, even + 1, false),
        ("a refusal", refusal, settled, even, false),
        ("an echo", icmp, settled, even, false),
        ("an error", error, settled, even, false),
        ("a piece of a datagram", piece, settled, even, false),
    ] {
        assert_eq!(is_worth_knowing(&flow, passage, generation), expected, "{name}");
    }
}

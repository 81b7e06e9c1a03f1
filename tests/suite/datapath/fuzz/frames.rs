//! Random frames: most of them nearly right, since what is all wrong is dropped at the first glance.

use std::net::{IpAddr, Ipv6Addr};

use fastrand::Rng;
use landbridge_bpf_loader::maps::Address;

use super::super::packets::{self, DONT_FRAGMENT, ICMP, ICMP6, Ip, MORE, ROUTING, TCP, UDP};
use super::super::trial::{INTERFACE, OVERLAY_MTU, ROUTER6};
use super::calls::{Called, any_call};
use super::model::{Arrival, Model, TUNNEL_IS_SET};
use super::world;

/// The shortest frame that the kernel runs a program on, and the longest that is made here.
const LEN: std::ops::RangeInclusive<usize> = 14..=300;

/// A frame at a hook of this node.
pub(super) fn any_arrival(random: &mut Rng, model: &Model) -> Arrival {
    let mut frame = match random.u8(..40) {
        0 => packets::arp_request(),
        1 => any_bytes(random),
        2..8 => any_packet_of_service(random, model).unwrap_or_else(|| any_packet(random)),
        _ => any_packet(random),
    };
    if random.u8(..4) == 0 {
        mutate(random, &mut frame);
    }
    frame.resize(frame.len().clamp(*LEN.start(), *LEN.end()), 0);
    frame.resize(frame.len().max(shortest(&frame)), 0);
    let mark = match random.u8(..8) {
        0 => TUNNEL_IS_SET,
        1 => random.u32(..),
        _ => 0,
    };
    let came_through = world::any_interface(random);
    let tunnel = (random.u8(..8) > 0).then(|| world::any_tunnel(random));
    Arrival { frame, interface: INTERFACE, came_through, mark, tunnel }
}

/// The kernel runs no program on a frame that does not have the header of the IP version that its type names.
fn shortest(frame: &[u8]) -> usize {
    match frame[12..14] {
        [0x08, 0x00] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => *LEN.start(),
    }
}

fn any_bytes(random: &mut Rng) -> Vec<u8> {
    let len = random.usize(LEN);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn any_packet(random: &mut Rng) -> Vec<u8> {
    let source = if random.u8(..3) == 0 { world::any_address(random) } else { world::pod_address(random) };
    let destination = world::any_address_like(random, source);
    let ip = any_ip(random, source, destination);
    if !source.is_ipv4() && random.u8(..8) == 0 {
        return any_word_to_the_link(random, ip);
    }
    ip.frame(&any_payload(random, &ip, 1))
}

/// What a pod sends to a service, or a backend answers: by chance alone, hardly ever everything fits together.
fn any_packet_of_service(random: &mut Rng, model: &Model) -> Option<Vec<u8>> {
    let Called { source, destination, source_port, destination_port, protocol } = any_call(random, model)?;
    let mut ip = any_ip(random, source, destination);
    let ports = [source_port, destination_port].map(u16::from_be_bytes);
    if random.u8(..4) > 0 {
        ip.protocol = protocol;
        return Some(ip.frame(&any_transport(random, protocol, ports, b"data")));
    }
    // An error about what came the other way.
    let mut quoted = any_ip(random, destination, source);
    quoted.protocol = protocol;
    let [source_port, destination_port] = ports;
    let inner = quoted.packet(&any_transport(random, protocol, [destination_port, source_port], b""));
    ip.protocol = if source.is_ipv4() { ICMP } else { ICMP6 };
    Some(ip.frame(&packets::icmp(world::pick(random, &[1, 3, 11]), 1, [0, 0, 5, 0xdc], &inner)))
}

/// A segment or a datagram.
fn any_transport(random: &mut Rng, protocol: u8, [source, destination]: [u16; 2], data: &[u8]) -> Vec<u8> {
    if protocol != TCP {
        return packets::udp(source, destination, data);
    }
    let flags =
        [packets::SYN, packets::SYN | packets::ACK, packets::ACK, packets::FIN | packets::ACK, packets::RST];
    packets::tcp(source, destination, world::pick(random, &flags), data)
}

/// Neighbour discovery, and what only routers say.
fn any_word_to_the_link(random: &mut Rng, mut ip: Ip) -> Vec<u8> {
    ip.protocol = ICMP6;
    let about = world::any_address_like(random, Address::from(ip.source));
    let target = if random.bool() { ROUTER6 } else { about };
    if random.u8(..4) == 0 {
        ip.source = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    }
    let kind = world::pick(random, &[135, 135, 135, 136, 133, 134, 137, 143]);
    let mut frame = ip.frame(&packets::neighbour(kind, target.0.into()));
    if random.bool() {
        // To all, as who does not know its gateway asks.
        frame[0] |= 1;
    }
    frame
}

fn any_ip(random: &mut Rng, source: Address, destination: Address) -> Ip {
    let mut ip = Ip::new(IpAddr::from(source), IpAddr::from(destination), world::any_protocol(random));
    ip.ttl = world::pick(random, &[0, 1, 2, 64, 64, 255]);
    if random.u8(..8) == 0 {
        ip.options = random.u8(..11);
    }
    ip.fragment = match random.u8(..16) {
        0 => random.u16(..),
        1 => MORE,
        2 => random.u16(1..MORE),
        3..8 => DONT_FRAGMENT,
        _ => 0,
    };
    if random.u8(..32) == 0 {
        ip.protocol = random.u8(..);
    }
    if random.u8(..32) == 0 {
        // For IPv4 one like any other that nobody knows.
        ip.protocol = ROUTING;
    }
    ip
}

/// What a packet with this header may have in it; `depth` is how deep errors may quote.
fn any_payload(random: &mut Rng, ip: &Ip, depth: u8) -> Vec<u8> {
    let [source, destination] = [(); 2].map(|()| u16::from_be_bytes(world::any_port(random)));
    let mut payload = match ip.protocol {
        TCP | UDP => any_transport(random, ip.protocol, [source, destination], b"data"),
        ICMP | ICMP6 if depth > 0 && random.bool() => {
            let kind = world::pick(random, &[1, 2, 3, 4, 11, 12]);
            // Most errors go to whom they concern.
            let concerned = Address::from(ip.destination);
            let called = world::any_address_like(random, concerned);
            let mut quoted = any_ip(random, concerned, called);
            if random.u8(..8) == 0 {
                std::mem::swap(&mut quoted.source, &mut quoted.destination);
            }
            let inner = quoted.packet(&any_payload(random, &quoted, depth - 1));
            let rest = [0, 0, 5, 0xdc];
            packets::icmp(kind, random.u8(..5), rest, &inner[..random.usize(..=inner.len())])
        }
        ICMP | ICMP6 => {
            let kind = world::pick(random, &[0, 8, 13, 14, 128, 129, 133, 135, 136]);
            let [a, b] = source.to_be_bytes();
            packets::icmp(kind, 0, [a, b, 0, 1], b"ping")
        }
        _ => {
            let mut payload = packets::udp(source, destination, b"data");
            payload.truncate(random.usize(..payload.len()));
            payload
        }
    };
    match random.u8(..32) {
        0 | 1 => payload.truncate(random.usize(..=payload.len())),
        2..4 => payload.resize(payload.len() + OVERLAY_MTU as usize, 7),
        _ => {}
    }
    payload
}

/// Makes a few bytes wrong, or cuts something off.
fn mutate(random: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..random.u8(1..4) {
        if frame.is_empty() {
            return;
        }
        // Headers are where it matters.
        let end = if random.bool() { frame.len().min(58) } else { frame.len() };
        let place = random.usize(..end);
        match random.u8(..8) {
            0 => frame.truncate(place),
            1 => frame.insert(place, random.u8(..)),
            2 => drop(frame.remove(place)),
            3 => frame[place] = world::pick(random, &[0, 1, 0x7f, 0x80, 0xff]),
            4 => frame[place] = random.u8(..),
            _ => frame[place] ^= 1 << random.u8(..8),
        }
    }
}

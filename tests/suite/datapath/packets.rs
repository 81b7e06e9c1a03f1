//! Packets made by hand, headers and checksums as the RFCs have them.

use std::net::{IpAddr, Ipv6Addr};

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;
pub(super) const SCTP: u8 = 132;
/// Extension headers of IPv6.
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
pub(super) const ROUTING: u8 = 43;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

const ETHERNET_LEN: usize = 14;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// What an IP header says, of either family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Time to live, or hop limit.
    pub(super) ttl: u8,
    /// Words of options, all of them "no operation". Of IPv6 in a header of their own, which fills up eight bytes.
    pub(super) options: u8,
    /// The 16 bits of flags and offset as IPv4 has them; of IPv6 there is a header for those that it knows.
    pub(super) fragment: u16,
}

/// More fragments follow.
pub(super) const MORE: u16 = 0x2000;
/// Nobody may make fragments of it.
pub(super) const DONT_FRAGMENT: u16 = 0x4000;
const OFFSET: u16 = 0x1fff;

impl Ip {
    pub(super) fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, protocol: u8) -> Self {
        let (source, destination) = (source.into(), destination.into());
        Self { source, destination, protocol, ttl: 64, options: 0, fragment: 0 }
    }

    /// The packet with this payload, from the IP header on.
    pub(super) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + 4 * usize::from(self.options);
                let total = u16::try_from(header_len + payload.len()).unwrap();
                let mut header = vec![0x45 + self.options, 0];
                header.extend(total.to_be_bytes());
                header.extend([0x12, 0x34]);
                header.extend(self.fragment.to_be_bytes());
                header.extend([self.ttl, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.resize(header_len, 1);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (first, extensions) = self.extensions();
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(u16::try_from(extensions.len() + payload.len()).unwrap().to_be_bytes());
                header.extend([first, self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(extensions);
                header
            }
            (source, destination) => panic!("{source} and {destination} are of two families"),
        };
        let header_len = packet.len();
        packet.extend(payload);
        if self.fragment & (MORE | OFFSET) == 0 {
            self.fill_in_checksum(&mut packet[header_len..]);
        }
        packet
    }

    /// The extension headers of IPv6, and what the first one is.
    fn extensions(&self) -> (u8, Vec<u8>) {
        let (mut next, mut headers) = (self.protocol, Vec::new());
        if self.fragment & (MORE | OFFSET) != 0 {
            let more = u16::from(self.fragment & MORE != 0);
            let [a, b] = (self.fragment << 3 | more).to_be_bytes();
            headers = vec![next, 0, a, b, 0, 0, 0x12, 0x34];
            next = FRAGMENT;
        }
        if self.options > 0 {
            let units = self.options / 2;
            let mut options = vec![next, units];
            options.resize(8 + 8 * usize::from(units), 0);
            headers.splice(..0, options);
            next = DESTINATION_OPTIONS;
        }
        (next, headers)
    }

    /// The frame with this payload.
    pub(super) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { TYPE_IPV4 } else { TYPE_IPV6 };
        ethernet(kind, &self.packet(payload))
    }

    fn fill_in_checksum(&self, transport: &mut [u8]) {
        let place = match self.protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMP6 => 2,
            _ => return,
        };
        if transport.len() < place + 2 {
            return;
        }
        let mut covered = Vec::new();
        if self.protocol != ICMP {
            for address in [self.source, self.destination] {
                match address {
                    IpAddr::V4(address) => covered.extend(address.octets()),
                    IpAddr::V6(address) => covered.extend(address.octets()),
                }
            }
            covered.extend([0, self.protocol]);
            covered.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
        }
        covered.extend(&*transport);
        let sum = match checksum(&covered) {
            // Of UDP, 0 means "none" (RFC 768).
            0 if self.protocol == UDP => 0xffff,
            sum => sum,
        };
        transport[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The Internet checksum (RFC 1071). Of what has its own checksum in it, 0 if that is right.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from);
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

pub(super) fn ethernet(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 9, 9, 1, 2, 0, 0, 9, 9, 2];
    frame.extend(kind);
    frame.extend(payload);
    debug_assert!(frame.len() >= ETHERNET_LEN);
    frame
}

pub(super) fn tcp(source_port: u16, destination_port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::from(source_port.to_be_bytes());
    segment.extend(destination_port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(data);
    segment
}

pub(super) fn udp(source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::from(source_port.to_be_bytes());
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    datagram
}

/// An ICMP message of either family; of an echo `rest` begins with the identifier, of an error `data` is what it quotes.
pub(super) fn icmp(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(data);
    message
}

/// A message of neighbour discovery about an address (RFC 4861): 135 asks, 136 tells.
pub(super) fn neighbour(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    icmp(kind, 0, [0; 4], &target.octets())
}

/// Who has 10.1.1.1? Tell 10.1.1.10.
pub(super) fn arp_request() -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 9, 9, 2, 10, 1, 1, 10];
    request.extend([0; 6]);
    request.extend([10, 1, 1, 1]);
    ethernet(TYPE_ARP, &request)
}

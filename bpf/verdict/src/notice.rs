//! What the node says itself in the place of a packet: errors (RFC 792, RFC 4443), and where the gateway is (RFC 4861).
//!
//! Each is everything behind the Ethernet header, as words in the machine's byte order of what is in the packet.

use landbridge_bpf_maps::Address;

use crate::packet::protocol;

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is larger than this many bytes, and may not be divided.
    TooBig(u16),
    /// It has passed as many routers as it may.
    TimeExceeded,
}

/// Words of an IPv4 packet that an error quotes: its header, without options, and eight bytes.
pub const QUOTED4: usize = 7;
/// Words of an IPv6 packet that an error quotes: its header and eight bytes.
pub const QUOTED6: usize = 12;
/// Words of an error over IPv4.
pub const ERROR4: usize = 7 + QUOTED4;
/// Words of an error over IPv6.
pub const ERROR6: usize = 12 + QUOTED6;
/// Words of an advertisement.
pub const ADVERTISEMENT: usize = 18;

/// Words of an IPv6 header.
const HEADER6: usize = 10;
/// How far what the node says itself may go.
const HOPS: u8 = 64;
/// What stays on its link, which a receiver can tell by it.
const LINK_HOPS: u8 = 255;

/// The error that `router` tells the sender of a packet of IPv4.
#[inline(always)]
#[must_use]
pub fn error4(router: [u8; 4], trouble: Trouble, quoted: &[u32; QUOTED4]) -> [u32; ERROR4] {
    let (kind, code, rest) = match trouble {
        Trouble::TooBig(mtu) => {
            let [a, b] = mtu.to_be_bytes();
            (3, 4, [0, 0, a, b])
        }
        Trouble::TimeExceeded => (11, 0, [0; 4]),
    };
    const LEN: u8 = len_of(ERROR4);
    let [_, _, _, sender, ..] = *quoted;
    let mut words = [0; ERROR4];
    words[0] = u32::from_ne_bytes([0x45, 0, 0, LEN]);
    words[2] = u32::from_ne_bytes([HOPS, protocol::ICMP, 0, 0]);
    words[3] = u32::from_ne_bytes(router);
    words[4] = sender;
    words[2] = u32::from_ne_bytes(with_checksum([HOPS, protocol::ICMP], sum(&words[..5])));
    words[6] = u32::from_ne_bytes(rest);
    words[7..].copy_from_slice(quoted);
    words[5] = u32::from_ne_bytes([kind, code, 0, 0]);
    words[5] = u32::from_ne_bytes(with_checksum([kind, code], sum(&words[5..])));
    words
}

/// The error that `router` tells the sender of a packet of IPv6.
#[inline(always)]
#[must_use]
pub fn error6(router: &Address, trouble: Trouble, quoted: &[u32; QUOTED6]) -> [u32; ERROR6] {
    let (kind, code, rest) = match trouble {
        Trouble::TooBig(mtu) => (2, 0, u32::from(mtu)),
        Trouble::TimeExceeded => (3, 0, 0),
    };
    let [_, _, a, b, c, d, ..] = *quoted;
    let mut words = [0; ERROR6];
    header6(&mut words, HOPS, router, [a, b, c, d]);
    words[11] = rest.to_be();
    words[12..].copy_from_slice(quoted);
    words[10] = u32::from_ne_bytes([kind, code, 0, 0]);
    words[10] = u32::from_ne_bytes(with_checksum([kind, code], sum6(&words)));
    words
}

/// The answer to whoever asks where the gateway is: at `mac`.
#[inline(always)]
#[must_use]
pub fn advertisement(gateway: &Address, solicitor: &Address, mac: [u8; 6]) -> [u32; ADVERTISEMENT] {
    const KIND: [u8; 2] = [136, 0];
    /// From a router, because it was asked, and in the place of what was known.
    const FLAGS: u8 = 0xe0;
    /// The option with the link-layer address of the target, in units of eight bytes.
    const OPTION: [u8; 2] = [2, 1];
    let [first, second, rest @ ..] = mac;
    let [kind, code] = KIND;
    let mut words = [0; ADVERTISEMENT];
    header6(&mut words, LINK_HOPS, gateway, solicitor.words());
    words[11] = u32::from_ne_bytes([FLAGS, 0, 0, 0]);
    words[12..16].copy_from_slice(&gateway.words());
    words[16] = u32::from_ne_bytes([OPTION[0], OPTION[1], first, second]);
    words[17] = u32::from_ne_bytes(rest);
    words[10] = u32::from_ne_bytes([kind, code, 0, 0]);
    words[10] = u32::from_ne_bytes(with_checksum(KIND, sum6(&words)));
    words
}

/// Writes the IPv6 header of a message.
#[inline(always)]
fn header6<const N: usize>(words: &mut [u32; N], hops: u8, source: &Address, destination: [u32; 4]) {
    words[0] = u32::from_ne_bytes([0x60, 0, 0, 0]);
    words[1] = u32::from_ne_bytes([0, const { len_of(N - HEADER6) }, protocol::ICMP6, hops]);
    words[2..6].copy_from_slice(&source.words());
    words[6..10].copy_from_slice(&destination);
}

/// Bytes of so many words.
const fn len_of(words: usize) -> u8 {
    let len = words * 4;
    assert!(len <= u8::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "it is asserted above")]
    {
        len as u8
    }
}

/// The ones' complement sum (RFC 1071) over words, not folded.
#[inline(always)]
fn sum(words: &[u32]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// The sum over a message of `ICMPv6`: its addresses, length and protocol are part of it.
#[inline(always)]
fn sum6<const N: usize>(words: &[u32; N]) -> u64 {
    let pseudo = u32::from(const { len_of(N - HEADER6) }).to_be();
    sum(&words[2..]) + u64::from(pseudo) + u64::from(u32::from(protocol::ICMP6).to_be())
}

/// Two bytes and the checksum behind them.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is folded")]
fn with_checksum([a, b]: [u8; 2], sum: u64) -> [u8; 4] {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [c, d] = (!(sum as u16)).to_ne_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::packet::{Flow, Scope, TYPE_IPV4, TYPE_IPV6, parse};

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
        core::array::from_fn(|place| u32::from_ne_bytes(bytes[4 * place..4 * place + 4].try_into().unwrap()))
    }

    /// The sum over bytes as RFC 1071 writes it down, 0 if the checksum in them is right.
    fn check(parts: &[&[u8]]) -> u16 {
        let mut sum = 0u32;
        for part in parts {
            sum += part.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    fn check6(packet: &[u8]) -> u16 {
        let len = u32::try_from(packet.len() - 40).unwrap().to_be_bytes();
        check(&[&packet[8..40], &len, &[0, 0, 0, protocol::ICMP6], &packet[40..]])
    }

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &kind, packet].concat()
    }

    const SENT4: [u8; 28] = [
        0x45, 0, 5, 220, 1, 2, 0x40, 0, 1, 6, 9, 9, 10, 1, 1, 10, 10, 2, 1, 10, 0x9c, 0x40, 1, 187, 1, 2, 3,
        4,
    ];

    #[test]
    fn an_error_is_whole_and_is_told_to_the_sender() {
        let router = [10, 1, 1, 1];
        for (trouble, expected) in
            [(Trouble::TooBig(1400), [3, 4, 0, 0, 5, 120]), (Trouble::TimeExceeded, [11, 0, 0, 0, 0, 0])]
        {
            let error = bytes(&error4(router, trouble, &words(&SENT4)));
            assert_eq!(usize::from(u16::from_be_bytes([error[2], error[3]])), error.len());
            assert_eq!((check(&[&error[..20]]), check(&[&error[20..]])), (0, 0));
            assert_eq!((&error[12..16], &error[16..20]), (&router[..], &SENT4[12..16]));
            assert_eq!([error[20], error[21], error[24], error[25], error[26], error[27]], expected);
            let mut flow = Flow::default();
            assert_eq!(parse(&frame(TYPE_IPV4, &error)[..], &mut flow), Ok(Scope::Network));
            assert!(flow.is_error());
            assert_eq!((flow.protocol, flow.source_port, flow.destination_port), (6, [1, 187], [0x9c, 0x40]));
        }
        let (sender, router) = (Address([0xfd; 16]), Address([0xfc; 16]));
        let mut sent = [0; 48];
        (sent[0], sent[6], sent[7]) = (0x60, protocol::UDP, 1);
        sent[8..24].copy_from_slice(&sender.0);
        sent[24..40].copy_from_slice(&[0xfe; 16]);
        sent[40..44].copy_from_slice(&[1, 2, 3, 4]);
        for (trouble, kind, rest) in
            [(Trouble::TooBig(1280), 2, [0, 0, 5, 0]), (Trouble::TimeExceeded, 3, [0; 4])]
        {
            let error = bytes(&error6(&router, trouble, &words(&sent)));
            assert_eq!((check6(&error), error[40], error[7]), (0, kind, HOPS));
            assert_eq!(usize::from(u16::from_be_bytes([error[4], error[5]])), error.len() - 40);
            assert_eq!(error[44..48], rest);
            let mut flow = Flow::default();
            assert_eq!(parse(&frame(TYPE_IPV6, &error)[..], &mut flow), Ok(Scope::Network));
            assert!(flow.is_error());
            assert_eq!((flow.source, flow.destination), (router, sender));
            assert_eq!((flow.destination_port, flow.source_port), ([1, 2], [3, 4]));
        }
    }

    #[test]
    fn the_gateway_is_advertised_to_who_asked() {
        let (gateway, solicitor) = (Address([0xfd; 16]), Address([0xfe; 16]));
        let told = bytes(&advertisement(&gateway, &solicitor, [2, 0, 0, 1, 2, 3]));
        assert_eq!((check6(&told), told[7], told[40], told[44]), (0, 255, 136, 0xe0));
        assert_eq!((&told[8..24], &told[24..40]), (&gateway.0[..], &solicitor.0[..]));
        assert_eq!((&told[48..64], &told[64..]), (&gateway.0[..], &[2, 1, 2, 0, 0, 1, 2, 3][..]));
    }
}

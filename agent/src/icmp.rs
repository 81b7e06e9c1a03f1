//! Echo requests and replies (RFC 792), as health probes use them.
//!
//! The payload is a secret of this process, so that an answer is one to this process's probe and not somebody's guess.

use std::net::Ipv4Addr;
use std::ops::Range;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Without options.
const IPV4_HEADER: usize = 20;
const CHECKSUM: Range<usize> = 2..4;
const IDENTIFIER: Range<usize> = 4..6;
const SEQUENCE: Range<usize> = 6..8;
const SECRET: Range<usize> = 8..16;

/// The length of an echo request in bytes, its IPv4 header left out.
pub(crate) const ECHO_LEN: usize = SECRET.end;

/// What tells one process's echo requests from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    /// The identifier of its packets.
    pub(crate) identifier: u16,
    /// Known to this process alone.
    pub(crate) secret: u64,
}

impl Echo {
    /// The echo request with this sequence number.
    pub(crate) fn request(self, sequence: u16) -> [u8; ECHO_LEN] {
        let mut packet = [0; ECHO_LEN];
        packet[0] = ECHO_REQUEST;
        packet[IDENTIFIER].copy_from_slice(&self.identifier.to_be_bytes());
        packet[SEQUENCE].copy_from_slice(&sequence.to_be_bytes());
        packet[SECRET].copy_from_slice(&self.secret.to_be_bytes());
        let checksum = checksum(&packet);
        packet[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// Reads an IPv4 packet: who answers, and which request. `None` if it is no answer to one of this process.
    pub(crate) fn answer(self, packet: &[u8]) -> Option<(Ipv4Addr, u16)> {
        let header_len = usize::from(packet.first()? & 0x0f) * 4;
        let header = packet.get(..header_len.max(IPV4_HEADER))?;
        let [.., a, b, c, d, _, _, _, _] = *header.first_chunk::<IPV4_HEADER>()?;
        let echo = packet.get(header.len()..)?.first_chunk::<ECHO_LEN>()?;
        let sequence = u16::from_be_bytes([echo[6], echo[7]]);
        let mut expected = self.request(sequence);
        expected[0] = ECHO_REPLY;
        // The kernel has checked the checksum.
        let is_answer = echo[..CHECKSUM.start] == expected[..CHECKSUM.start]
            && echo[CHECKSUM.end..] == expected[CHECKSUM.end..];
        is_answer.then_some((Ipv4Addr::new(a, b, c, d), sequence))
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("two foldings leave 16 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a kernel makes of a request (RFC 792: the type changes, and with it the checksum).
    fn reply(request: [u8; ECHO_LEN], source: Ipv4Addr, options: usize) -> Vec<u8> {
        let mut packet = vec![0; IPV4_HEADER + options * 4];
        packet[0] = 0x45 + u8::try_from(options).unwrap();
        packet[12..16].copy_from_slice(&source.octets());
        packet.extend(request);
        packet[IPV4_HEADER + options * 4] = ECHO_REPLY;
        packet
    }

    proptest! {
        #[test]
        fn an_answer_names_its_probe(identifier: u16, secret: u64, sequence: u16, source: u32, options in 0usize..=10) {
            let (echo, source) = (Echo { identifier, secret }, Ipv4Addr::from_bits(source));
            let request = echo.request(sequence);
            prop_assert_eq!(checksum(&request), 0, "a right checksum makes the sum of all 0");
            prop_assert_eq!(echo.answer(&reply(request, source, options)), Some((source, sequence)));
            let other = Echo { secret: secret.wrapping_add(1), ..echo };
            prop_assert_eq!(other.answer(&reply(request, source, options)), None);
        }

        #[test]
        fn nothing_that_arrives_breaks_it(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Echo { identifier: 7, secret: 0x1234_5678_9abc_def0 }.answer(&packet), None);
        }
    }

    #[test]
    fn a_request_of_ours_that_comes_back_is_no_answer() {
        let echo = Echo { identifier: 7, secret: 9 };
        let mut packet = reply(echo.request(3), Ipv4Addr::LOCALHOST, 0);
        packet[IPV4_HEADER] = ECHO_REQUEST;
        assert_eq!(echo.answer(&packet), None);
    }
}

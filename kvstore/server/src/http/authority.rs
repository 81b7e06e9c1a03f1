//! Makes the requests of old clients of etcd ones that HTTP/2 has.
//!
//! To ask one member, clients of etcd 3.4 (`etcdctl endpoint status` of Debian 12 is one) dial its URL and send all of it as
//! `:authority`, scheme included. Go does not mind. RFC 9113 (8.3.1) has a host and a port there, and hyper ends such a
//! request with `PROTOCOL_ERROR` before anyone sees it. Nobody looks at the authority here, so that the scheme becomes
//! other letters: as many and of as many bits, so that nothing else on the way moves.
//!
//! ```text
//! bytes ─► frames ─► HEADERS: RFC 7541 fields up to `:authority` ─► "http://" ─► as long a host
//!                    others: as they are
//! ```
//!
//! Invariants:
//! - A connection whose first request has an authority that begins with no scheme is left alone from there on.
//! - Bytes are changed where they are: their number, and every length in them, stay what they are.
//! - What makes no sense is handed on as it is: to refuse it is hyper's part.

/// Of the head of a frame.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// The longest frame that a client may send unless it is told otherwise, which it is not.
const LONGEST: usize = 16 << 10;
/// The place of `:authority` in the static table of RFC 7541.
const AUTHORITY: usize = 1;

/// Schemes, each with a host of as many letters; raw, and in Huffman's code (RFC 7541, appendix B), where that has as many
/// bits, too. The bits stand left in the number.
const SCHEMES: [Scheme; 2] = [
    Scheme {
        raw: b"http://",
        host: b"aaaajjj",
        bits: 41,
        code: bits(b"http://"),
        host_code: bits(b"aaaajjj"),
    },
    Scheme {
        raw: b"https://",
        host: b"aaaaajjj",
        bits: 46,
        code: bits(b"https://"),
        host_code: bits(b"aaaaajjj"),
    },
];

struct Scheme {
    raw: &'static [u8],
    host: &'static [u8],
    /// Of either code.
    bits: u32,
    code: u64,
    host_code: u64,
}

/// The code of a few letters, left in the number.
const fn bits(text: &[u8]) -> u64 {
    let (mut code, mut free, mut at) = (0_u64, 64, 0);
    while at < text.len() {
        let (letter, length) = match text[at] {
            b'a' => (0b0_0011, 5),
            b's' => (0b0_1000, 5),
            b't' => (0b0_1001, 5),

            b'/' => (0b01_1000, 6),
            b'h' => (0b10_0111, 6),
            b'p' => (0b10_1011, 6),
            b':' => (0b101_1100, 7),
            b'j' => (0b111_0100, 7),
            _ => panic!("a letter of no scheme"),
        };
        free -= length;
        code |= letter << free;
        at += 1;
    }
    code
}

/// Looks through what a client says, from the first byte of the first frame on.
#[derive(Debug, Default)]
pub(super) struct Mender {
    /// Bytes of the present frame that are handed on as they come.
    rest: usize,
    /// Nothing more is to be looked at.
    done: bool,
}

impl Mender {
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Mends what begins `bytes`, and returns how much of it may be handed on. The rest has to be given again, with more.
    pub(super) fn mend(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while !self.done {
            let left = bytes.len() - at;
            let passed = self.rest.min(left);
            (at, self.rest) = (at + passed, self.rest - passed);
            let Some((head, payload)) = bytes[at..].split_at_mut_checked(HEAD) else { return at };
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if head[3] != HEADERS || length > LONGEST {
                self.rest = length;
            } else if let Some(payload) = payload.get_mut(..length) {
                self.done = !mend_headers(payload, head[4]).unwrap_or(false);
                at += length;
            } else {
                return at;
            }
            at += HEAD;
        }
        bytes.len()
    }
}

/// Mends a frame. Returns whether others of the connection may have to be mended: its authority was, or is the one that was
/// before. Nothing if it makes no sense.
fn mend_headers(payload: &mut [u8], flags: u8) -> Option<bool> {
    let mut fields = Fields { block: payload, at: 0 };
    fields.at += usize::from(flags & PADDED > 0) + if flags & PRIORITY > 0 { 5 } else { 0 };
    while fields.at < fields.block.len() {
        let first = *fields.block.get(fields.at)?;
        if first & 0x80 > 0 {
            fields.number(7)?;
            continue;
        }
        if first & 0xe0 == 0x20 {
            // A new size of the table.
            fields.number(5)?;
            continue;
        }
        let name = fields.number(if first & 0x40 > 0 { 6 } else { 4 })?;
        if name == 0 {
            fields.text()?;
        }
        let (is_coded, value) = fields.text()?;
        if name == AUTHORITY {
            return Some(mend_authority(is_coded, value));
        }
    }
    // It came with an earlier request, or there is none.
    Some(true)
}

/// Returns whether there was something to mend.
fn mend_authority(is_coded: bool, value: &mut [u8]) -> bool {
    for scheme in &SCHEMES {
        if !is_coded {
            if let Some(begin) = value.get_mut(..scheme.raw.len()).filter(|begin| **begin == *scheme.raw) {
                begin.copy_from_slice(scheme.host);
                return true;
            }
        } else if let Some(begin) = value.first_chunk_mut::<8>() {
            let mask = u64::MAX << (64 - scheme.bits);
            let code = u64::from_be_bytes(*begin);
            if code & mask == scheme.code {
                *begin = (scheme.host_code | code & !mask).to_be_bytes();
                return true;
            }
        }
    }
    false
}

/// The fields of a block, one after the other.
struct Fields<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    /// A number that begins in the last `bits` of a byte (RFC 7541, 5.1).
    fn number(&mut self, bits: u32) -> Option<usize> {
        let all = (1_usize << bits) - 1;
        let mut number = usize::from(*self.block.get(self.at)?) & all;
        self.at += 1;
        let mut shift = 0;
        while number >= all {
            let more = *self.block.get(self.at)?;
            self.at += 1;
            // Nothing in a frame is as large.
            number = number.checked_add(usize::from(more & 0x7f).checked_shl(shift)?)?;
            shift += 7;
            if more & 0x80 == 0 || shift > 21 {
                break;
            }
        }
        Some(number)
    }

    /// A text, and whether it is in Huffman's code.
    fn text(&mut self) -> Option<(bool, &mut [u8])> {
        let is_coded = self.block.get(self.at)? & 0x80 > 0;
        let length = self.number(7)?;
        let start = self.at;
        self.at = start.checked_add(length)?;
        Some((is_coded, self.block.get_mut(start..self.at)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method: POST`, `:scheme: http`, `:path` and then the authority, as Go sends them.
    fn request(authority: &[u8]) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        let path = b"\x44\x03/a/";
        frame(HEADERS, 4, &[&[0x83, 0x86][..], path, &[0x41, length], authority, b"\x40\x01x\x01y"].concat())
    }

    /// As the encoder of Go makes it of `http://127.0.0.1:2379`.
    const CODED: [u8; 15] =
        [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x09, 0x97, 0x5f];

    #[test]
    fn a_scheme_becomes_a_host_of_the_same_length() {
        let mut bytes = [request(b"http://127.0.0.1:2379"), request(b"https://[::1]:1")].concat();
        let expected = [request(b"aaaajjj127.0.0.1:2379"), request(b"aaaaajjj[::1]:1")].concat();
        let mut mender = Mender::default();
        assert_eq!(mender.mend(&mut bytes), expected.len());
        assert_eq!(bytes, expected);
        assert!(!mender.is_done());
        for host in ["aaaajjj127.0.0.1:2379", "aaaaajjj[::1]:1"] {
            host.parse::<http::uri::Authority>().unwrap();
        }
    }

    #[test]
    fn a_coded_scheme_becomes_one_too() {
        let mut coded = CODED;
        assert!(mend_authority(true, &mut coded));
        // 41 bits were changed: five bytes and one bit of the sixth.
        assert_eq!(coded[..5], bits(b"aaaajjj").to_be_bytes()[..5]);
        assert_eq!((coded[5] & 0x7f, &coded[6..]), (CODED[5] & 0x7f, &CODED[6..]));
        assert!(!mend_authority(true, &mut coded));
    }

    #[test]
    fn who_sends_a_host_is_left_alone_from_then_on() {
        for authority in [&b"127.0.0.1:2379"[..], b"store", b""] {
            let sent = [request(authority), request(b"http://a")].concat();
            let mut bytes = sent.clone();
            let mut mender = Mender::default();
            assert_eq!(mender.mend(&mut bytes), sent.len());
            assert!(mender.is_done() && bytes == sent, "{authority:?}");
        }
    }

    proptest! {
        /// However the bytes come, the same go on.
        #[test]
        fn pieces_are_mended_like_the_whole(
            frames in prop::collection::vec((0_u8..5, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cuts in prop::collection::vec(1_usize..50, 0..40),
        ) {
            let mut sent = frame(4, 0, &[]);
            sent.extend(request(b"http://a:1"));
            for (kind, flags, payload) in &frames {
                sent.extend(frame(*kind, *flags, payload));
            }
            let mut whole = sent.clone();
            let handed_on = Mender::default().mend(&mut whole);
            prop_assert_eq!(handed_on, sent.len());

            let (mut mender, mut held, mut got) = (Mender::default(), Vec::new(), Vec::new());
            let mut rest = &sent[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                held.extend_from_slice(now);
                let ready = mender.mend(&mut held);
                got.extend(held.drain(..ready));
                rest = later;
            }
            prop_assert_eq!(got, whole);
        }
    }
}

//! Frames in the bytes of a segment. Pure.
//!
//! ```text
//! │ len u32 │ crc32c u32 │ number u64 │ payload, len bytes │ zeros up to a multiple of 8 │     little-endian
//! ```
//!
//! The checksum covers the segment's salt, the length, the number and the payload. The salt is random: bytes that a
//! client chose, in the payload of a torn frame, cannot pass for a frame, and neither can those of a segment's former
//! use.

/// Bytes before the payload.
pub(super) const HEADER_LEN: usize = 16;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Frames begin at multiples of this, so that what is behind a broken one can be found.
const ALIGNMENT: usize = 8;

/// How many bytes a frame of `payload_len` bytes takes.
pub(super) fn encoded_len(payload_len: usize) -> u64 {
    (HEADER_LEN + payload_len).next_multiple_of(ALIGNMENT) as u64
}

/// Appends a frame to `out`.
///
/// # Panics
/// If the payload has 4 GiB or more; the store's limits are far below.
pub(super) fn encode(salt: u64, number: u64, payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).expect("a batch is far below 4 GiB").to_le_bytes();
    let crc = checksum(salt, len, number, payload).to_le_bytes();
    let end = out.len() + (HEADER_LEN + payload.len()).next_multiple_of(ALIGNMENT);
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(end, 0);
}

fn checksum(salt: u64, len: [u8; 4], number: u64, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &len);
    let crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
    crc32c::crc32c_append(crc, payload)
}

/// A whole frame.
struct Frame<'a> {
    number: u64,
    payload: &'a [u8],
}

/// The whole frame at the start of `bytes`, if there is one.
fn decode(salt: u64, bytes: &[u8]) -> Option<Frame<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3, number @ ..] = *header;
    let len = [l0, l1, l2, l3];
    let number = u64::from_le_bytes(number);
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(len)).ok()?)?;
    let whole = checksum(salt, len, number, payload) == u32::from_le_bytes([c0, c1, c2, c3]);
    whole.then_some(Frame { number, payload })
}

/// The payload of the frame at the start of `bytes`, if it is whole and has this number.
pub(super) fn first(salt: u64, number: u64, bytes: &[u8]) -> Option<&[u8]> {
    decode(salt, bytes).filter(|frame| frame.number == number).map(|frame| frame.payload)
}

/// What the bytes of a segment hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// The payloads of all whole frames from the start.
    pub(super) payloads: Vec<&'a [u8]>,
    /// Where they end.
    pub(super) end: usize,
    /// What is behind them.
    pub(super) rest: Rest,
}

/// What is behind the last whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Zeros, or nothing.
    Empty,
    /// A frame that was never acknowledged, of which some sectors are missing; zeros from this place on.
    Torn(usize),
    /// A frame that cannot be read although a whole one is behind it, or although all its sectors were written.
    Damaged,
}

/// Reads frames numbered from `first` on; `bytes` begin at `offset` of their file.
pub(super) fn scan(salt: u64, first: u64, offset: usize, bytes: &[u8]) -> Scan<'_> {
    let mut payloads = Vec::new();
    let mut end = 0;
    let mut expected = first;
    while let Some(frame) = decode(salt, &bytes[end..]).filter(|frame| frame.number == expected) {
        payloads.push(frame.payload);
        end += (HEADER_LEN + frame.payload.len()).next_multiple_of(ALIGNMENT);
        expected += 1;
        if end >= bytes.len() {
            break;
        }
    }
    let end = end.min(bytes.len());
    let written = bytes[end..].iter().rposition(|byte| *byte != 0).map(|last| end + last + 1);
    let rest = match written {
        None => Rest::Empty,
        Some(written) if has_frame(salt, expected, &bytes[end..], written - end) => Rest::Damaged,
        Some(written) if lacks_a_sector(offset + end, &bytes[end..], written - end) => Rest::Torn(written),
        Some(_) => Rest::Damaged,
    };
    Scan { payloads, end, rest }
}

/// Whether a whole frame numbered `expected` or later begins in the first `written` of `bytes`. Behind these are zeros,
/// in which a frame may end.
fn has_frame(salt: u64, expected: u64, bytes: &[u8], written: usize) -> bool {
    let most = (bytes.len() / HEADER_LEN) as u64;
    let plausible = |place: &usize| {
        let number =
            bytes.get(place + 8..).and_then(|bytes| bytes.first_chunk()).copied().map(u64::from_le_bytes);
        number.is_some_and(|number| number >= expected && number - expected <= most)
    };
    // Only a place that holds a possible number costs a checksum.
    let mut places = (0..written).step_by(ALIGNMENT).filter(plausible);
    places.any(|place| decode(salt, &bytes[place..]).is_some())
}

/// Whether the broken frame at the start of `bytes`, `offset` bytes into its file, has a sector of zeros: one that the
/// crash kept from the disk, where zeros were before. Its length is what it says, or what is written at least.
fn lacks_a_sector(offset: usize, bytes: &[u8], written: usize) -> bool {
    let said =
        bytes.first_chunk().map(|len| u32::from_le_bytes(*len)).and_then(|len| usize::try_from(len).ok());
    let said = said.map_or(0, |len| (HEADER_LEN + len).next_multiple_of(ALIGNMENT));
    let frame = &bytes[..written.max(said).min(bytes.len())];
    let (first, others) = frame.split_at((SECTOR - offset % SECTOR).min(frame.len()));
    [first].into_iter().chain(others.chunks(SECTOR)).any(|sector| sector.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn encoded(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, payload) in (7..).zip(payloads) {
            encode(SALT, number, payload, &mut bytes);
        }
        bytes
    }

    /// Payloads that look like frames and like zeros, too.
    fn any_payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let frame_inside =
            (1u64..20, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(number, payload)| {
                let mut bytes = Vec::new();
                encode(SALT ^ 1, number, &payload, &mut bytes);
                bytes
            });
        let payload = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            prop::collection::vec(Just(0), 0..60),
            prop::collection::vec(1u8.., 500..2_000),
            frame_inside,
        ];
        prop::collection::vec(payload, 1..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(payloads in any_payloads(), zeros in 0usize..100) {
            let mut bytes = encoded(&payloads);
            let end = bytes.len();
            bytes.resize(end + zeros * 8, 0);
            let scan = scan(SALT, 7, 0, &bytes);
            prop_assert_eq!((scan.end, scan.rest), (end, Rest::Empty));
            prop_assert!(scan.payloads.iter().eq(payloads.iter()));
        }

        /// A crash keeps any sectors of the last frame from the disk; nothing before it is lost.
        #[test]
        fn a_torn_frame_is_cut_off(
            payloads in any_payloads(),
            offset in 0usize..64,
            holes in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        ) {
            let offset = offset * ALIGNMENT;
            let mut bytes = encoded(&payloads);
            let start = encoded(&payloads[..payloads.len() - 1]).len();
            for hole in holes {
                let sector = (offset + start + hole.index(bytes.len() - start)) / SECTOR * SECTOR;
                let from = sector.saturating_sub(offset).max(start);
                let to = (sector + SECTOR - offset).min(bytes.len());
                bytes[from..to].fill(0);
            }
            let scan = scan(SALT, 7, offset, &bytes);
            // A hole may have hit nothing but zeros.
            if scan.payloads.len() < payloads.len() {
                prop_assert!(matches!(scan.rest, Rest::Empty | Rest::Torn(_)), "{:?}", scan.rest);
                prop_assert_eq!(scan.end, start);
            }
            prop_assert!(scan.payloads.iter().zip(&payloads).all(|(read, written)| read == written));
        }

        /// A flipped bit is never read as data, and with a whole frame behind it it is called damage.
        #[test]
        fn a_flipped_bit_is_noticed(payloads in any_payloads(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encoded(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let last = encoded(&payloads[..payloads.len() - 1]).len();
            let scan = scan(SALT, 7, 0, &bytes);
            prop_assert!(scan.payloads.iter().zip(&payloads).all(|(read, written)| read == written));
            if scan.payloads.len() < payloads.len() {
                // A wrong length of the last frame may reach into zeros that look like a sector that is missing.
                prop_assert!(scan.rest == Rest::Damaged || (at >= last && scan.rest != Rest::Empty), "{:?}", scan.rest);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let scan = scan(SALT, 7, 0, &bytes);
            prop_assert!(scan.end <= bytes.len());
        }
    }
}

//! Messages that are compressed with gzip, each by itself, as gRPC has them (gRPC over HTTP/2, "Compression").
//!
//! ```text
//! request ─► whole messages ─► Unpacker ─► as if they had come plain ─► the call ─► Packer ─► answer
//! ```
//!
//! Invariants:
//! - No message takes more room unpacked than a plain one may have, whatever it says about itself.
//! - One message at a time is unpacked, when the one before was taken.
//! - An answer is packed piece by piece, and others of the same thread come in between.

mod gathered;

use std::io::{Read, Write};
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::HeaderMap;
use tonic::Status;

use gathered::Gathered;

/// The header that names the compression.
pub(super) const ENCODING: &str = "grpc-encoding";
/// This one.
pub(super) const GZIP: &str = "gzip";

/// What stands before each message: whether it is compressed, and its length in four bytes.
const PREFIX_LEN: usize = 5;
/// What is smaller goes as it is: there is little to win.
const SMALL: usize = 256;
/// How much of an answer is packed at a time: a few milliseconds.
const PIECE_BYTES: usize = 256 << 10;

/// Takes from the headers of a request what they say about compression: whether its messages are packed, so that they are plain
/// for whoever reads them behind an [`Unpacker`].
///
/// # Errors
/// If they are in a way that nobody knows here: as etcd's gRPC says it.
pub(super) fn take_encoding(headers: &mut HeaderMap) -> Result<bool, Status> {
    let encoding = headers.remove(ENCODING);
    match encoding.as_ref().map(|encoding| String::from_utf8_lossy(encoding.as_bytes())) {
        None => Ok(false),
        Some(encoding) if encoding.is_empty() || encoding == "identity" => Ok(false),
        Some(encoding) if encoding == GZIP => Ok(true),
        Some(encoding) => Err(Status::unimplemented(format!(
            "grpc: Decompressor is not installed for grpc-encoding {encoding:?}"
        ))),
    }
}

/// Unpacks the messages of a request.
#[derive(Debug)]
pub(super) struct Unpacker {
    gathered: Gathered,
    largest: usize,
}

impl Unpacker {
    /// For messages of `largest` bytes at most, packed and unpacked.
    pub(super) fn new(largest: usize) -> Self {
        Self { gathered: Gathered::default(), largest }
    }

    /// Takes what comes next, once [`Self::next`] has no more of what came before.
    pub(super) fn push(&mut self, data: Bytes) {
        self.gathered.push(data);
    }

    /// The next message as it would have come plain.
    ///
    /// # Errors
    /// If it is too large, or cannot be unpacked: as etcd's gRPC says it.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(message) = self.gathered.next(self.largest)? else { return Ok(None) };
        // Of another flag, whoever reads it says what is wrong with it.
        Ok(Some(if message[0] == 1 { unpacked(&message[PREFIX_LEN..], self.largest)? } else { message }))
    }

    /// What is left at the end: a message that is not whole, for whoever reads it to say so.
    pub(super) fn left(&mut self) -> Bytes {
        self.gathered.left()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }
}

fn unpacked(packed: &[u8], largest: usize) -> Result<Bytes, Status> {
    let too_large = |len: usize| {
        Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max ({len} vs. {largest})"
        ))
    };
    // It ends with the length of what is in it (RFC 1952, "ISIZE"): what is honest needs no room to be refused.
    let said = packed.last_chunk().map_or(0, |len| u32::from_le_bytes(*len));
    let said = usize::try_from(said).unwrap_or(usize::MAX);
    if said > largest {
        return Err(too_large(said));
    }
    let mut message = Vec::with_capacity(PREFIX_LEN + said);
    message.resize(PREFIX_LEN, 0);
    let most = (largest as u64).saturating_add(1);
    MultiGzDecoder::new(packed).take(most).read_to_end(&mut message).map_err(|error| {
        Status::internal(format!("grpc: failed to decompress the received message: {error}"))
    })?;
    let len = message.len() - PREFIX_LEN;
    match u32::try_from(len) {
        Ok(prefix) if len <= largest => message[1..PREFIX_LEN].copy_from_slice(&prefix.to_be_bytes()),
        _ => return Err(too_large(len)),
    }
    Ok(message.into())
}

/// Packs the messages of an answer.
#[derive(Debug, Default)]
pub(super) struct Packer {
    gathered: Gathered,
    under_way: Option<Packing>,
}

/// A message of which a part is packed.
#[derive(Debug)]
struct Packing {
    message: Bytes,
    at: usize,
    encoder: GzEncoder<Vec<u8>>,
}

impl Packer {
    /// Takes what comes next, once [`Self::poll_next`] has no more of what came before.
    pub(super) fn push(&mut self, data: Bytes) {
        self.gathered.push(data);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.under_way.is_none()
    }

    /// The next message, packed if that makes it smaller.
    ///
    /// # Errors
    /// None but the encoder's, which has none.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        let Some(Packing { message, at, encoder }) = &mut self.under_way else {
            let Some(message) = self.gathered.next(usize::MAX)? else {
                return Poll::Ready(Ok(None));
            };
            if message.len() < SMALL {
                return Poll::Ready(Ok(Some(message)));
            }
            let encoder = GzEncoder::new(vec![0; PREFIX_LEN], Compression::fast());
            self.under_way = Some(Packing { message, at: PREFIX_LEN, encoder });
            return self.poll_next(context);
        };
        let end = message.len().min(*at + PIECE_BYTES);
        encoder.write_all(&message[*at..end])?;
        *at = end;
        if end < message.len() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(Packing { message, encoder, .. }) = self.under_way.take() else {
            return Poll::Ready(Ok(None));
        };
        let mut packed = encoder.finish()?;
        Poll::Ready(Ok(Some(match u32::try_from(packed.len() - PREFIX_LEN) {
            Ok(len) if packed.len() < message.len() => {
                packed[0] = 1;
                packed[1..PREFIX_LEN].copy_from_slice(&len.to_be_bytes());
                packed.into()
            }
            _ => message,
        })))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    const LARGEST: usize = 5_000;

    fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[flag], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// All that an unpacker makes of a body in such pieces.
    fn unpack(body: &[u8], piece: usize) -> Result<Vec<u8>, Status> {
        let mut unpacker = Unpacker::new(LARGEST);
        let mut plain = Vec::new();
        for piece in body.chunks(piece) {
            unpacker.push(Bytes::copy_from_slice(piece));
            while let Some(message) = unpacker.next()? {
                plain.extend_from_slice(&message);
            }
        }
        plain.extend_from_slice(&unpacker.left());
        assert!(unpacker.is_empty());
        Ok(plain)
    }

    /// All that a packer makes of a body in such pieces.
    fn pack(body: &[u8], piece: usize) -> Vec<u8> {
        let mut packer = Packer::default();
        let mut packed = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        for piece in body.chunks(piece) {
            packer.push(Bytes::copy_from_slice(piece));
            loop {
                match packer.poll_next(&mut context) {
                    Poll::Ready(Ok(Some(message))) => packed.extend_from_slice(&message),
                    Poll::Ready(Ok(None)) => break,
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => {}
                }
            }
        }
        assert!(packer.is_empty());
        packed
    }

    proptest! {
        /// However a body is cut, its messages are those that were packed, and what is not whole is left as it is.
        #[test]
        fn what_was_packed_is_unpacked(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(0..3_u8, 0..600)), 0..8),
            end in prop::collection::vec(0..=1_u8, 0..5),
            piece in 1..700_usize,
        ) {
            let (mut body, mut plain) = (Vec::new(), Vec::new());
            for (is_packed, message) in messages {
                let zipped = if is_packed { zipped(&message) } else { message.clone() };
                body.extend(framed(u8::from(is_packed), &zipped));
                plain.extend(framed(0, &message));
            }
            prop_assert_eq!(unpack(&pack(&plain, piece), piece).unwrap(), plain.clone());
            body.extend(&end);
            // What is not whole is not said to be packed.
            plain.extend(end.iter().enumerate().map(|(at, byte)| if at == 0 { 0 } else { *byte }));
            prop_assert_eq!(unpack(&body, piece).unwrap(), plain);
        }

        #[test]
        fn bytes_of_anyone_are_unpacked_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            piece in 1..400_usize,
        ) {
            // Also of something that was whole.
            let mut spoiled = framed(1, &zipped(&bytes));
            let at = at.index(spoiled.len());
            spoiled[at] ^= 1 << (piece % 8);
            for bytes in [bytes, spoiled] {
                if let Ok(plain) = unpack(&bytes, piece) {
                    prop_assert!(plain.len() <= bytes.len() + LARGEST);
                }
            }
        }
    }

    #[test]
    fn a_message_takes_no_more_room_than_a_plain_one_may() {
        let fits = framed(1, &zipped(&[7; LARGEST]));
        assert_eq!(unpack(&fits, 10).unwrap(), framed(0, &[7; LARGEST]));
        // One that tells how large it is, and one that says that it is small.
        let honest = framed(1, &zipped(&vec![0; 8 << 20]));
        let lies = framed(1, &[zipped(&vec![0; 8 << 20]), zipped(&[])].concat());
        for (bomb, told) in [(honest, 8 << 20), (lies, LARGEST + 1)] {
            let refusal = unpacked(&bomb[PREFIX_LEN..], LARGEST).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
            assert!(refusal.message().ends_with(&format!("({told} vs. {LARGEST})")), "{refusal}");
            // Neither fits as it is.
            let refusal = unpack(&bomb, bomb.len()).unwrap_err();
            assert!(refusal.message().starts_with("grpc: received message larger than max"), "{refusal}");
        }
    }

    #[test]
    fn a_large_answer_is_packed_in_pieces() {
        let message = framed(0, &vec![7; 3 * PIECE_BYTES]);
        let mut packer = Packer::default();
        packer.push(message.clone().into());
        let mut context = Context::from_waker(Waker::noop());
        let mut pauses = 0;
        while packer.poll_next(&mut context).is_pending() {
            pauses += 1;
        }
        assert_eq!(pauses, 2);
        let noise: Vec<u8> = (0..2_000).map(|_| fastrand::u8(..)).collect();
        for (message, flag) in [(message, 1), (framed(0, &noise), 0), (framed(0, &[]), 0)] {
            assert_eq!(pack(&message, message.len())[0], flag);
        }
    }
}

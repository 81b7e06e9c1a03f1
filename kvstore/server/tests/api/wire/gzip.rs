//! Calls whose messages are packed.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use prost::Message;

use super::{Answer, Both, Call, GRANT, PUT, RANGE, STATUS, TXN, cut, flagged, framed, put, range};

const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(message: &[u8]) -> Bytes {
    flagged(1, &zipped(message))
}

fn call(path: &'static str, frames: impl IntoIterator<Item = Bytes>) -> Call {
    Call::new(path, frames).with("grpc-encoding", "gzip")
}

/// The messages of an answer, and how many of them were packed.
fn messages(answer: &Answer) -> (Vec<Vec<u8>>, usize) {
    let (mut rest, mut messages, mut packed) = (&answer.message[..], Vec::new(), 0);
    while let Some((&[flag, a, b, c, d], behind)) = rest.split_first_chunk() {
        let (message, behind) = behind.split_at(usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap());
        rest = behind;
        messages.push(if flag == 1 {
            packed += 1;
            let mut plain = Vec::new();
            GzDecoder::new(message).read_to_end(&mut plain).unwrap();
            plain
        } else {
            message.to_vec()
        });
    }
    (messages, packed)
}

#[tokio::test]
async fn what_comes_packed_is_taken_and_answered_in_kind() {
    let Some(both) = Both::start().await else { return };
    let value = put(1 << 20);
    let txn = pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range())) }],
        ..Default::default()
    };
    let grant = pb::LeaseGrantRequest { ttl: 100, id: 7 };
    for (path, message) in [
        (PUT, value.encode_to_vec()),
        (RANGE, range().encode_to_vec()),
        (TXN, txn.encode_to_vec()),
        (GRANT, grant.encode_to_vec()),
        (STATUS, Vec::new()),
    ] {
        let whole = packed(&message);
        let cases = [
            ("packed", vec![whole.clone()]),
            ("in pieces", cut(&whole, 7)),
            ("plain beside a header that says otherwise", vec![framed(&message)]),
        ];
        for (what, frames) in cases {
            let what = format!("{path} {what}");
            if path == GRANT {
                let revoke = pb::LeaseRevokeRequest { id: 7 };
                both.agree("the lease of before", false, Call::of(REVOKE, &revoke)).await;
            }
            let answer = both.agree(&what, true, call(path, frames)).await;
            assert_eq!(
                (answer.grpc.as_deref(), &answer.encoding[..]),
                (Some("0"), "gzip"),
                "{what}: {answer:?}"
            );
            let (messages, packed) = messages(&answer);
            // What is large is packed.
            let is_large = matches!(path, RANGE | TXN);
            assert_eq!((messages.len(), packed), (1, usize::from(is_large)), "{what}");
            if path == RANGE {
                let found = pb::RangeResponse::decode(&messages[0][..]).unwrap();
                assert!(found.kvs[0].value() == value.value && answer.message.len() < 100_000, "{what}");
            }
        }
    }
    // Several members of one file are one message (RFC 1952, 2.2); several messages of a stream are packed each.
    let message = range().encode_to_vec();
    let members = flagged(1, &[zipped(&message[..1]), zipped(&message[1..])].concat());
    both.agree("two members", true, call(RANGE, [members])).await;
    let alive = pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec();
    let stream = call(KEEP_ALIVE, [[packed(&alive), framed(&alive), packed(&alive)].concat().into()]);
    let answer = both.agree("a stream", true, stream).await;
    let replies = messages(&answer).0;
    assert_eq!(replies.len(), 3);
    for reply in replies {
        assert_eq!(pb::LeaseKeepAliveResponse::decode(&reply[..]).unwrap().id, 7);
    }
    // Who sends nothing packed gets nothing packed, whatever they could read.
    let plain = Call::of(RANGE, &range()).with("grpc-accept-encoding", "gzip");
    let answer = both.agree("plain", true, plain).await;
    assert_eq!((&answer.encoding[..], messages(&answer).1), ("", 0));
    both.ours.stop().await;
}

#[tokio::test]
async fn what_cannot_be_unpacked_or_is_too_large_then_is_refused() {
    let Some(both) = Both::start().await else { return };
    let message = range().encode_to_vec();
    let whole = zipped(&message);
    let (body, end) = whole.split_at(whole.len() - 8);
    let wrong_sum = [body, &[end[0] ^ 1], &end[1..]].concat();
    let bomb = |megabytes: usize| zipped(&vec![0; megabytes << 20]);
    // With texts that are etcd's, and those of which only the code is: what exactly is wrong is said by other libraries.
    let cases: [(&str, Bytes, bool, &str); 9] = [
        ("no file of gzip", flagged(1, b"abc"), false, "13"),
        ("nothing", flagged(1, b""), false, "13"),
        ("a wrong checksum", flagged(1, &wrong_sum), false, "13"),
        ("a flag that is none", flagged(7, &whole), false, "13"),
        ("too large for a request", packed(&put(1_600_000).encode_to_vec()), true, "3"),
        ("too large for a message", packed(&put(3 << 20).encode_to_vec()), true, "8"),
        ("a bomb", flagged(1, &bomb(64)), true, "8"),
        ("one that says it is small", flagged(1, &[bomb(64), zipped(b"")].concat()), false, "8"),
        ("too large as it is", flagged(1, &vec![7; 3 << 20]), true, "8"),
    ];
    for path in [PUT, GRANT] {
        for (what, bytes, text, code) in &cases {
            if path == GRANT && *what == "too large for a request" {
                continue;
            }
            let what = format!("{path}: {what}");
            let answer = both.agree(&what, *text, call(path, [bytes.clone()])).await;
            assert_eq!(answer.grpc.as_deref(), Some(*code), "{what}: {answer:?}");
        }
        let unnamed = Call::new(path, [packed(&message)]);
        both.agree("packed, and no word about it", false, unnamed).await;
        let early = call(path, [flagged(1, &whole).slice(..9)]);
        let [ours, theirs] = both.say(&early).await.map(|answer| answer.unwrap().grpc);
        // As it is for plain ones: tonic has a code for it.
        assert!(ours == theirs || path == GRANT && ours.as_deref() == Some("13"), "{ours:?} {theirs:?}");
        for encoding in ["deflate", "GZIP", "gzip, gzip", ""] {
            let other = Call::new(path, [packed(&message)]).with("grpc-encoding", encoding);
            // Whoever reads the message of the last one says what is wrong, in words of its own.
            both.agree(&format!("as {encoding:?}"), !encoding.is_empty(), other).await;
        }
    }
    both.ours.stop().await;
}

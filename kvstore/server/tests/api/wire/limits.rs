//! How much may be said at a time.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, iter, pending};
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{AccessRules, ServiceSettings};
use prost::Message;
use tokio::net::TcpStream;
use tonic::Code;

use super::{Both, Call, GRANT, PUT, RANGE, STATUS, TXN, decoded, flagged, framed, put, range, say};
use crate::store::{Client, Ours, soon};
use crate::suite::assert_refused;

/// etcd takes 16 MiB of it for each of the streams of a connection; here, 1 MiB. Both go on with the next one.
#[tokio::test]
async fn metadata_has_a_limit() {
    let Some(both) = Both::start().await else { return };
    for len in [12 << 10, 20 << 10, 200 << 10, 1000 << 10] {
        for path in [RANGE, STATUS] {
            let fits = Call::of(path, &range()).with("some-metadata", "m".repeat(len));
            let answer = both.agree("metadata that fits", true, fits).await;
            assert_eq!(answer.grpc.as_deref(), Some("0"), "{answer:?}");
        }
    }
    for len in [1100 << 10, 8 << 20] {
        let call = Call::of(RANGE, &range()).with("some-metadata", "m".repeat(len));
        match say(&both.ours.endpoint("http"), &call).await {
            Ok(answer) => assert_eq!((answer.http, answer.grpc), (431, None)),
            Err(error) => assert!(len == 8 << 20, "{error}"),
        }
        Client::connect(&both.ours.endpoint("http"), "a").await.put("next", "").await;
    }
    both.ours.stop().await;
}

/// So deep that whoever followed it down would run out of stack.
#[tokio::test]
async fn depth_is_no_way_down() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let mut txn = Vec::new();
    for _ in 0..5_000 {
        let mut op = vec![0x22];
        prost::encoding::encode_varint(txn.len() as u64, &mut op);
        op.append(&mut txn);
        txn = vec![0x12];
        prost::encoding::encode_varint(op.len() as u64, &mut txn);
        txn.append(&mut op);
    }
    let groups = [b"\xa3\x06".repeat(5_000), b"\xa4\x06".repeat(5_000)].concat();
    for (path, message) in [(TXN, &txn), (RANGE, &groups), (GRANT, &groups)] {
        let answer = say(&ours.endpoint("http"), &Call::new(path, [framed(message)])).await.unwrap();
        assert!(!matches!(answer.grpc.as_deref(), None | Some("0")), "{path}: {answer:?}");
    }
    let json = format!("{}{{}}{}", r#"{"success":[{"request_txn":"#.repeat(5_000), "}]}".repeat(5_000));
    let (status, _) = crate::http::post(&ours.endpoint("http"), "/v3/kv/txn", &json).await;
    assert!((400..500).contains(&status), "{status}");
    Client::connect(&ours.endpoint("http"), "a").await.put("next", "").await;
    ours.stop().await;
}

/// Large requests that do not end are taken up to a bound, and refused beyond; what is let go of makes room for others.
#[tokio::test]
async fn requests_that_do_not_end_are_held_up_to_a_bound() {
    const BYTES: usize = 1 << 20;
    let settings = ServiceSettings { max_held_bytes: 16 * BYTES, ..ServiceSettings::default() };
    let ours = Ours::start_with(AccessRules::Open, None, settings).await;
    let address = ours.address();
    let begin = framed(&put(BYTES).encode_to_vec()).slice(..BYTES);
    let packed = flagged(1, &vec![7; BYTES]).slice(..BYTES);
    let (nothing, metadata) = (Bytes::new(), "m".repeat(BYTES - 1024));
    // Each on a connection of its own, or many on one, which gets half; what is packed, and metadata, are no other.
    for (connections, streams, held, begin, encoding, metadata) in [
        (30, 1, 16, &begin, "identity", ""),
        (1, 30, 8, &begin, "identity", ""),
        (30, 1, 16, &packed, "gzip", ""),
        (30, 1, 16, &nothing, "identity", &metadata),
        (1, 30, 8, &nothing, "identity", &metadata),
    ] {
        let mut answers = Vec::new();
        let mut senders = Vec::new();
        for _ in 0..connections {
            let tcp = TcpStream::connect(address).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..streams {
                let request = Request::post(format!("http://{address}{PUT}"));
                let request = request.header("content-type", "application/grpc").header("te", "trailers");
                let request = request.header("grpc-encoding", encoding).header("some-metadata", metadata);
                let begun = iter([Ok::<_, hyper::Error>(Frame::data(begin.clone()))]);
                let request = request.body(StreamBody::new(begun.chain(pending()))).unwrap();
                answers.push(sender.clone().send_request(request));
            }
            senders.push(sender);
        }
        let mut answers: FuturesUnordered<_> = answers.into_iter().collect();
        for _ in held..connections * streams {
            let refused = soon(answers.next()).await.unwrap().unwrap();
            let told = (refused.headers().get("grpc-status"), refused.headers().get("grpc-message"));
            let is = (told.0.unwrap().as_bytes(), decoded(told.1.unwrap().to_str().unwrap()));
            assert_eq!(is, (&b"8"[..], "etcdserver: too many requests".to_owned()));
        }
        // The others wait for the rest of theirs.
        assert_eq!(answers.len(), held);
        drop((answers, senders));
        let whole = Call::of(PUT, &put(BYTES));
        soon(async {
            while say(&ours.endpoint("http"), &whole).await.unwrap().grpc.as_deref() != Some("0") {}
        })
        .await;
    }
    ours.stop().await;
}

/// Each copy of the store that is being sent has a thread; whoever does not read theirs takes no more than there are.
#[tokio::test]
async fn copies_that_nobody_reads_leave_the_others_alone() {
    const COPIES: usize = 16;
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    for n in 0..8 {
        client.put(&n.to_string(), &"v".repeat(1 << 20)).await;
    }
    let begin = async || {
        let channel = Client::connect(&ours.endpoint("http"), "a").await.channel;
        let mut maintenance = pb::maintenance_client::MaintenanceClient::new(channel);
        soon(maintenance.snapshot(pb::SnapshotRequest {})).await
    };
    let mut unread = Vec::new();
    for _ in 0..COPIES {
        unread.push(begin().await.unwrap());
    }
    let text = "etcdserver: too many requests";
    assert_refused(begin().await, Code::ResourceExhausted, text);
    client.put("another", "").await;
    drop(unread);
    soon(async { while begin().await.is_err() {} }).await;
    ours.stop().await;
}

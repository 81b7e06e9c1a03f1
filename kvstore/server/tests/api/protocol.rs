//! What gRPC carries beside etcd's calls: what there is to call, ranges in pieces, who says what about themselves.

use std::time::Duration;

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{AccessRules, ServiceSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::store::{Client, Ours, soon};
use crate::suite::assert_refused;

#[tokio::test]
async fn the_server_tells_what_there_is_to_call() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(client.channel.clone());
    let mut answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| &service.name[..]).collect();
    let expected = [
        "etcdserverpb.KV",
        "etcdserverpb.Watch",
        "etcdserverpb.Lease",
        "etcdserverpb.Cluster",
        "etcdserverpb.Maintenance",
        "etcdserverpb.Auth",
        "v3lockpb.Lock",
        "v3electionpb.Election",
        "grpc.health.v1.Health",
    ];
    for service in expected {
        assert!(names.contains(&service), "{service} is not among {names:?}");
    }
    drop(answers);
    ours.stop().await;
}

#[tokio::test]
async fn the_pieces_of_a_range_are_the_range() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    for number in 0..50 {
        client.put(&format!("{number:02}"), "value").await;
    }
    let all = client.range_of("", "a");
    let requests = [
        all.clone(),
        pb::RangeRequest { limit: 7, ..all.clone() },
        pb::RangeRequest { limit: 30, keys_only: true, ..all.clone() },
        pb::RangeRequest { count_only: true, ..all.clone() },
        pb::RangeRequest { revision: 20, serializable: true, ..all.clone() },
        pb::RangeRequest { key: client.key("07"), ..Default::default() },
        pb::RangeRequest { key: client.key("none"), ..Default::default() },
        pb::RangeRequest { key: client.key("07"), range_end: "\0".into(), ..Default::default() },
    ];
    for request in requests {
        let expected = client.range(request.clone()).await.unwrap();
        let mut pieces = client.kv().range_stream(request.clone()).await.unwrap().into_inner();
        let mut merged = pb::RangeResponse::default();
        while let Some(piece) = soon(pieces.message()).await.unwrap() {
            let piece = piece.range_response.unwrap();
            assert!(merged.header.is_none(), "only the last piece has a header");
            merged.kvs.extend(piece.kvs);
            merged = pb::RangeResponse { kvs: merged.kvs, ..piece };
        }
        assert_eq!(merged, expected, "{request:?}");
    }
    let sorted = pb::RangeRequest { sort_target: 3, ..all.clone() };
    let text = "RangeStream does not support custom sort orders";
    assert_refused(client.kv().range_stream(sorted).await, Code::Unimplemented, text);
    let filtered = pb::RangeRequest { max_mod_revision: 3, ..all };
    let text = "RangeStream does not support revision filters";
    assert_refused(client.kv().range_stream(filtered).await, Code::Unimplemented, text);
    let text = "etcdserver: key is not provided";
    let nothing = client.kv().range_stream(pb::RangeRequest::default()).await;
    assert_refused(nothing, Code::InvalidArgument, text);
    ours.stop().await;
}

#[tokio::test]
async fn a_version_of_a_client_is_a_text() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let mut request = Request::new(client.range_of("a", "b"));
    request.metadata_mut().insert("client-api-version", "3.5".parse().unwrap());
    client.kv().range(request).await.unwrap();
    let mut request = Request::new(client.range_of("a", "b"));
    request.metadata_mut().insert("client-api-version", MetadataValue::try_from(&b"3.\xff"[..]).unwrap());
    let text = "etcdserver: invalid client api version";
    assert_refused(client.kv().range(request).await, Code::InvalidArgument, text);
    ours.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_cut_off() {
    // The client below says what it wants within that.
    let head_deadline = Duration::from_secs(1);
    let settings = ServiceSettings { head_deadline, ..ServiceSettings::default() };
    let ours = Ours::start_with(AccessRules::Open, None, settings).await;
    let endpoint = ours.endpoint("http");
    let client = Client::connect(&endpoint, "a").await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET /health HTTP/1.1\r\nhost: a\r\nslow"] {
        let mut tcp = TcpStream::connect(endpoint.split_once("://").unwrap().1).await.unwrap();
        tcp.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // Whether with a word or without one.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
    }
    // A connection of HTTP/2 that has nothing to say is no such client.
    client.put("a", "1").await;
    ours.stop().await;
}

/// RFC 9113: a frame is a length of three bytes, a kind, flags and a stream; SETTINGS are kind 4, and setting 3 of it is how
/// many streams there may be. PING is kind 6.
#[tokio::test]
async fn a_client_is_told_how_many_streams_it_may_have_and_is_cut_off_if_it_does_not_answer() {
    let settings = ServiceSettings {
        max_streams: 7,
        ping_interval: Some(Duration::from_millis(50)),
        ping_timeout: Duration::from_millis(50),
        ..ServiceSettings::default()
    };
    let ours = Ours::start_with(AccessRules::Open, None, settings).await;
    let endpoint = ours.endpoint("http");
    let mut tcp = TcpStream::connect(endpoint.split_once("://").unwrap().1).await.unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    soon(tcp.read_to_end(&mut said)).await.unwrap();
    let (mut frames, mut kinds, mut streams) = (&said[..], Vec::new(), None);
    while let [high, middle, low, kind, rest @ ..] = frames {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let (payload, next) = rest[5..].split_at(length);
        kinds.push(*kind);
        let max = payload.as_chunks::<6>().0.iter().find(|setting| *kind == 4 && setting[..2] == [0, 3]);
        streams = streams.or(max.map(|setting| setting[2..].to_vec()));
        frames = next;
    }
    assert_eq!(streams, Some(vec![0, 0, 0, 7]));
    assert!(kinds.contains(&6), "{kinds:?}");
    // Who answers stays.
    Client::connect(&endpoint, "a").await.put("a", "1").await;
    ours.stop().await;
}

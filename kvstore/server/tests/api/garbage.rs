//! Requests that were right until some of their bytes were changed: each is answered, and the next one, too.
//!
//! `LANDBRIDGE_GARBAGE_SEEDS` says how many there are, `LANDBRIDGE_GARBAGE_FIRST_SEED` which is the first.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::grpc::proto::{authpb, v3electionpb, v3lockpb};
use landbridge_kvstore_server::{AccessRules, AuthOptions};
use prost::Message;
use tokio::net::TcpStream;

use crate::http::post;
use crate::store::{Client, Ours, soon};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Changes some bytes.
fn spoil(bytes: &mut Vec<u8>, dice: &mut fastrand::Rng) {
    for _ in 0..dice.u8(1..4) {
        let at = dice.usize(..=bytes.len());
        let len = dice.usize(..16).min(bytes.len() - at);
        match dice.u8(..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + len)),
            2 => drop(bytes.splice(at..at, (0..len).map(|_| dice.u8(..)).collect::<Vec<_>>())),
            // The largest number that there is, as protobuf has it.
            3 => drop(bytes.splice(at..at + len, [0xff; 9].into_iter().chain([1]))),
            4 => {
                let copy = bytes[at..at + len].to_vec();
                let to = dice.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.u8(..8);
                }
            }
        }
    }
}

/// A request of each kind, but for those after which nobody could ask for anything: of members, of alarms, and those that
/// begin and end the need for a password.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let (key, range_end) = (Bytes::from_static(b"k"), Bytes::from_static(b"l"));
    let range = pb::RangeRequest {
        key: key.clone(),
        range_end: range_end.clone(),
        limit: 5,
        sort_order: 1,
        sort_target: 2,
        ..Default::default()
    };
    let put = pb::PutRequest { key: key.clone(), value: "value".into(), prev_kv: true, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: key.clone(), range_end: range_end.clone(), prev_kv: true };
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        target: pb::compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(3)),
        ..Default::default()
    };
    use pb::request_op::Request as Op;
    let inner = pb::TxnRequest { success: vec![op(Op::RequestRange(range.clone()))], ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put.clone())), op(Op::RequestTxn(inner))],
        failure: vec![op(Op::RequestDeleteRange(delete.clone()))],
    };
    let create = pb::WatchCreateRequest { key: key.clone(), start_revision: 1, ..Default::default() };
    let union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let watch = pb::WatchRequest { request_union: union };
    let name = || "name".to_owned();
    let user = pb::AuthUserAddRequest { name: name(), password: name(), ..Default::default() };
    let permission = authpb::Permission { perm_type: 2, key: key.clone(), range_end };
    let grant = pb::AuthRoleGrantPermissionRequest { name: name(), perm: Some(permission) };
    let lock = v3lockpb::LockRequest { name: key.clone(), lease: 7 };
    let campaign = v3electionpb::CampaignRequest { name: key.clone(), lease: 7, value: key.clone() };
    let leader = v3electionpb::LeaderKey { name: key.clone(), key: key.clone(), rev: 3, lease: 7 };
    let proclaim = v3electionpb::ProclaimRequest { leader: Some(leader.clone()), value: key.clone() };
    vec![
        ("etcdserverpb.KV/Range", range.encode_to_vec()),
        ("etcdserverpb.KV/RangeStream", range.encode_to_vec()),
        ("etcdserverpb.KV/Put", put.encode_to_vec()),
        ("etcdserverpb.KV/DeleteRange", delete.encode_to_vec()),
        ("etcdserverpb.KV/Txn", txn.encode_to_vec()),
        ("etcdserverpb.KV/Compact", pb::CompactionRequest { revision: 2, physical: true }.encode_to_vec()),
        ("etcdserverpb.Watch/Watch", watch.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 60, id: 7 }.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        ("etcdserverpb.Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec()),
        (
            "etcdserverpb.Lease/LeaseTimeToLive",
            pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec(),
        ),
        ("etcdserverpb.Lease/LeaseLeases", Vec::new()),
        ("etcdserverpb.Auth/UserAdd", user.encode_to_vec()),
        ("etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest { name: name() }.encode_to_vec()),
        (
            "etcdserverpb.Auth/UserGrantRole",
            pb::AuthUserGrantRoleRequest { user: name(), role: name() }.encode_to_vec(),
        ),
        ("etcdserverpb.Auth/RoleAdd", pb::AuthRoleAddRequest { name: name() }.encode_to_vec()),
        ("etcdserverpb.Auth/RoleGrantPermission", grant.encode_to_vec()),
        (
            "etcdserverpb.Auth/Authenticate",
            pb::AuthenticateRequest { name: name(), password: name() }.encode_to_vec(),
        ),
        ("etcdserverpb.Maintenance/Status", Vec::new()),
        ("etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 2 }.encode_to_vec()),
        ("etcdserverpb.Maintenance/Snapshot", Vec::new()),
        ("etcdserverpb.Maintenance/MoveLeader", pb::MoveLeaderRequest { target_id: 7 }.encode_to_vec()),
        (
            "etcdserverpb.Maintenance/Downgrade",
            pb::DowngradeRequest { action: 1, version: name() }.encode_to_vec(),
        ),
        ("etcdserverpb.Cluster/MemberList", pb::MemberListRequest { linearizable: true }.encode_to_vec()),
        ("v3lockpb.Lock/Lock", lock.encode_to_vec()),
        ("v3lockpb.Lock/Unlock", v3lockpb::UnlockRequest { key: key.clone() }.encode_to_vec()),
        ("v3electionpb.Election/Campaign", campaign.encode_to_vec()),
        ("v3electionpb.Election/Proclaim", proclaim.encode_to_vec()),
        ("v3electionpb.Election/Leader", v3electionpb::LeaderRequest { name: key.clone() }.encode_to_vec()),
        ("v3electionpb.Election/Observe", v3electionpb::LeaderRequest { name: key }.encode_to_vec()),
        (
            "v3electionpb.Election/Resign",
            v3electionpb::ResignRequest { leader: Some(leader) }.encode_to_vec(),
        ),
        ("grpc.health.v1.Health/Check", b"\x0a\x01k".to_vec()),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x3a\x01*".to_vec()),
    ]
}

/// Those whose answers have no end.
const ENDLESS: [&str; 2] = ["etcdserverpb.Watch/Watch", "v3electionpb.Election/Observe"];
/// Those that may wait for others as long as they like.
const WAITING: [&str; 2] = ["v3lockpb.Lock/Lock", "v3electionpb.Election/Campaign"];

/// What a gateway is asked in JSON.
const JSON: [(&str, &str); 5] = [
    (
        "/v3/kv/range",
        r#"{"key":"aw==","range_end":"bA==","limit":"5","sort_order":"DESCEND","keys_only":true}"#,
    ),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"target":"MOD","key":"aw==","mod_revision":3}],"success":[{"request_put":{"key":"aw==","value":"dg=="}}]}"#,
    ),
    ("/v3/lease/timetolive", r#"{"ID":"7","keys":true}"#),
    ("/v3/lease/keepalive", r#"{"ID":7}{"ID":"8"}"#),
    ("/v3/auth/role/grant", r#"{"name":"n","perm":{"permType":"READ","key":"aw=="}}"#),
];

async fn connect(ours: &Ours) -> SendRequest<Full<Bytes>> {
    let tcp = TcpStream::connect(ours.address()).await.unwrap();
    // Head and body are two writes.
    tcp.set_nodelay(true).unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn start() -> Ours {
    let options = AuthOptions { bcrypt_cost: 4, ..AuthOptions::default() };
    Ours::start_with_users(tempfile::tempdir().unwrap(), options, None).await
}

#[tokio::test]
async fn garbage_in_place_of_a_message_is_answered() {
    let ours = start().await;
    let requests = requests();
    let mut sender = connect(&ours).await;
    let first = number("LANDBRIDGE_GARBAGE_FIRST_SEED", 1);
    for seed in first..first + number("LANDBRIDGE_GARBAGE_SEEDS", 2_000) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let (method, message) = &requests[dice.usize(..requests.len())];
        let mut message = message.clone();
        spoil(&mut message, &mut dice);
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        let mut body = [&[0][..], &len, &message].concat();
        if dice.u8(..8) == 0 {
            spoil(&mut body, &mut dice);
        }
        let request = Request::post(format!("http://{}/{method}", ours.address()));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let waits = ENDLESS.contains(method) || WAITING.contains(method);
        let request = request.header("grpc-timeout", if waits { "10m" } else { "1M" });
        let request = request.body(Full::from(body)).unwrap();
        let answer = soon(sender.send_request(request)).await;
        let answer: Response<Incoming> =
            answer.unwrap_or_else(|error| panic!("seed {seed}, {method}: {error}"));
        assert_eq!(answer.status(), 200, "seed {seed}, {method}");
        if !ENDLESS.contains(method) {
            let end = soon(answer.into_body().collect()).await;
            end.unwrap_or_else(|error| panic!("seed {seed}, {method}: {error}"));
        }
    }
    Client::connect(&ours.endpoint("http"), "a").await.put("after", "").await;
    ours.stop().await;
}

#[tokio::test]
async fn garbage_in_json_is_answered() {
    let ours = start().await;
    let first = number("LANDBRIDGE_GARBAGE_FIRST_SEED", 1);
    for seed in first..first + number("LANDBRIDGE_GARBAGE_SEEDS", 2_000) / 4 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let (path, text) = JSON[dice.usize(..JSON.len())];
        let mut text = text.as_bytes().to_vec();
        spoil(&mut text, &mut dice);
        // It answers, and in UTF-8.
        post(&ours.endpoint("http"), path, &String::from_utf8_lossy(&text)).await;
    }
    ours.stop().await;
}

/// The first bytes of a connection: of HTTP/1 and 2, of TLS to one that has none, and the other way round.
#[tokio::test]
async fn garbage_in_place_of_a_connection_ends_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const BEGINNINGS: [&[u8]; 5] = [
        b"GET /health?exclude=NOSPACE&serializable=true HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"POST /v3/kv/range HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"key\r\n7\r\n\":\"aw\"}\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x0d\x01\x05\0\0\0\x01\x83\x86\x04\x02/a\x01\x05store",
        b"\x16\x03\x01\0\x2e\x01\0\0\x2a\x03\x03rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\0\0\x04\x13\x01\x13\x02\x01\0",
    ];
    let ca = crate::pki::Ca::new("ours");
    let plain = Ours::start(AccessRules::Open, None).await;
    let encrypted = Ours::start(AccessRules::Open, Some(ca.server_files())).await;
    let first = number("LANDBRIDGE_GARBAGE_FIRST_SEED", 1);
    for seed in first..first + number("LANDBRIDGE_GARBAGE_SEEDS", 2_000) / 4 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut bytes = BEGINNINGS[dice.usize(..BEGINNINGS.len())].to_vec();
        spoil(&mut bytes, &mut dice);
        let to = if dice.bool() { &plain } else { &encrypted };
        let mut tcp = TcpStream::connect(to.address()).await.unwrap();
        let said = async {
            tcp.write_all(&bytes).await?;
            tcp.shutdown().await?;
            tcp.read_to_end(&mut Vec::new()).await
        };
        // Answered or refused, but over.
        let _ = soon(said).await;
    }
    Client::connect(&plain.endpoint("http"), "a").await.put("after", "").await;
    let tls = crate::pki::client_tls(&ca.pem(), Some(&ca.sign("client")));
    crate::pki::connect(&encrypted.endpoint("https"), tls).await.unwrap();
    plain.stop().await;
    encrypted.stop().await;
}

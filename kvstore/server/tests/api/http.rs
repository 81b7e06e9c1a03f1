//! HTTP on the port of gRPC: health, versions and the API in JSON, by a client of HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{AccessRules, ServiceSettings};
use landbridge_lab::requirement::{Requirement, etcd, met};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pki::Ca;
use crate::store::{Client, Etcd, Ours, soon};

fn address(endpoint: &str) -> &str {
    endpoint.split_once("://").unwrap().1
}

async fn send(endpoint: &str, method: Method, path: &str, body: &str) -> Response<Incoming> {
    send_with(endpoint, method, path, body, ("accept", "*/*")).await
}

async fn send_with(
    endpoint: &str,
    method: Method,
    path: &str,
    body: &str,
    header: (&str, &str),
) -> Response<Incoming> {
    let tcp = TcpStream::connect(address(endpoint)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", address(endpoint));
    let request = request.header(header.0, header.1);
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    soon(sender.send_request(request)).await.unwrap()
}

async fn text(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) async fn get(endpoint: &str, path: &str) -> (u16, String) {
    text(send(endpoint, Method::GET, path, "").await).await
}

pub(crate) async fn post(endpoint: &str, path: &str, body: &str) -> (u16, String) {
    text(send(endpoint, Method::POST, path, body).await).await
}

/// What two stores may say differently: who they are, when, and how a parser words it.
fn comparable(path: &str, (status, body): (u16, String)) -> (u16, Value) {
    // A value, one on each line, or a text; Go tells its checks in any order.
    let values: Result<Vec<Value>, _> = body.lines().map(serde_json::from_str).collect();
    let mut body = match values {
        Ok(mut values) if values.len() == 1 => values.remove(0),
        Ok(values) => values.into(),
        Err(_) => {
            let mut lines: Vec<&str> = body.lines().collect();
            lines.sort_unstable();
            lines.join("\n").into()
        }
    };
    if let Some(object) = body.as_object_mut() {
        // grpc-gateway has it in its first version, and not in its second.
        object.remove("error");
        if object.get("message").and_then(Value::as_str).is_some_and(|text| text.starts_with("proto:")) {
            object["message"] = "proto: …".into();
        }
        if path == "/v3/maintenance/status" {
            object.retain(|name, _| matches!(name.as_str(), "header" | "leader"));
        }
    }
    hide(&mut body);
    (status, body)
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let is_id =
                    matches!(name.as_str(), "cluster_id" | "member_id" | "raft_term" | "leader" | "hash");
                if is_id && (field.is_string() || field.is_number())
                    || matches!(name.as_str(), "peerURLs" | "clientURLs" | "TTL")
                {
                    *field = "…".into();
                } else if name == "members" {
                    field[0]["ID"] = "…".into();
                    hide(field);
                } else {
                    hide(field);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        _ => {}
    }
}

const GETS: &[&str] = &[
    "/health",
    "/health?serializable=true",
    "/health?exclude=NOSPACE",
    "/livez",
    "/livez?verbose",
    "/readyz",
    "/readyz?verbose",
    "/readyz/data_corruption",
    "/readyz/serializable_read?verbose",
    "/readyz/ping",
    "/livez?exclude=serializable_read&verbose",
    "/readyz?exclude=nope",
    "/nope",
    "/",
    "/v3/nope",
    "/v3/kv/range",
    "/v3beta/kv/range",
];

const POSTS: &[(&str, &str)] = &[
    ("/health", ""),
    ("/version", ""),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
    ("/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","bogus":{"a":[1]}}"#),
    (
        "/v3/kv/range",
        r#"{"key":"AA==","rangeEnd":"AA==","sort_order":"DESCEND","sortTarget":"MOD","limit":1e1}"#,
    ),
    ("/v3/kv/range", r#"{"key":"Zm9v","limit":null,"keys_only":true}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","count_only":true}"#),
    ("/v3/kv/range", r#"{"key":"_-8="}"#),
    ("/v3/kv/range", r#"{"key":1}"#),
    ("/v3/kv/range", r#"{"key":"!!"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","limit":"x"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","limit":1.5}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","serializable":"true"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"99"}"#),
    ("/v3/kv/range", "{"),
    ("/v3/kv/range", ""),
    ("/v3/kv/range", "{} x"),
    ("/v3/kv/range", "[]"),
    ("/v3/kv/range", "null"),
    ("/v3/lease/grant", r#"{"TTL":100,"ID":"77"}"#),
    ("/v3/lease/grant", r#"{"TTL":100,"ID":"77"}"#),
    ("/v3/lease/grant", r#"{"TTL":"9000000001"}"#),
    ("/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":"77"}"#),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy","lease":5}"#),
    ("/v3/lease/timetolive", r#"{"ID":77,"keys":true}"#),
    ("/v3/kv/lease/timetolive", r#"{"ID":78}"#),
    ("/v3/lease/leases", "{}"),
    ("/v3/kv/lease/leases", "{}"),
    ("/v3/lock/lock", r#"{"name":"bG9jaw==","lease":77}"#),
    ("/v3/lock/lock", r#"{"name":"bG9jaw==","lease":99}"#),
    ("/v3/lock/unlock", r#"{"key":"bG9jay80ZA=="}"#),
    ("/v3/election/campaign", r#"{"name":"ZWw=","lease":77,"value":"dg=="}"#),
    ("/v3/election/leader", r#"{"name":"ZWw="}"#),
    ("/v3/election/leader", r#"{"name":"bm9uZQ=="}"#),
    ("/v3/election/proclaim", "{}"),
    ("/v3/election/resign", "{}"),
    ("/v3/lease/keepalive", r#"{"ID":77}{"ID":1234}"#),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":"YmF6"}],"success":[{"request_put":{"key":"Zm9v","value":"eA=="}},{"requestRange":{"key":"Zm9v"}},{"request_delete_range":{"key":"eA=="}}]}"#,
    ),
    ("/v3/kv/txn", r#"{"success":[{}]}"#),
    ("/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#),
    ("/v3/lease/revoke", r#"{"ID":77}"#),
    ("/v3/kv/lease/revoke", r#"{"ID":77}"#),
    ("/v3/kv/compaction", r#"{"revision":"99"}"#),
    ("/v3/kv/compaction", r#"{"revision":"3"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    ("/v3/maintenance/status", "{}"),
    ("/v3/maintenance/alarm", r#"{"action":"GET"}"#),
    ("/v3/maintenance/alarm", r#"{"action":"BOGUS"}"#),
    ("/v3/maintenance/defragment", "{}"),
    ("/v3/maintenance/hash_kv", "{}"),
    ("/v3/maintenance/downgrade", "{}"),
    ("/v3/maintenance/downgrade", r#"{"action":"VALIDATE","version":"3.5.0"}"#),
    ("/v3/maintenance/downgrade", r#"{"action":"VALIDATE","version":"bogus"}"#),
    ("/v3/maintenance/downgrade", r#"{"action":"CANCEL"}"#),
    ("/v3/maintenance/downgrade", r#"{"action":7,"version":"3.4.0"}"#),
    ("/v3/cluster/member/list", "{}"),
    ("/v3/auth/authenticate", r#"{"name":"a","password":"b"}"#),
];

#[tokio::test]
async fn what_is_asked_in_json_is_answered_as_etcd_does() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start(&etcd().unwrap());
    Client::connect(&etcd.endpoint, "a").await;
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    for path in GETS {
        let (theirs, answer) = (get(&etcd.endpoint, path).await, get(&endpoint, path).await);
        assert_eq!(comparable(path, answer), comparable(path, theirs), "GET {path}");
    }
    for (path, body) in POSTS {
        let (theirs, answer) = (post(&etcd.endpoint, path, body).await, post(&endpoint, path, body).await);
        assert_eq!(comparable(path, answer), comparable(path, theirs), "POST {path} {body}");
    }
    ours.stop().await;
}

#[tokio::test]
async fn the_versions_are_those_of_the_status() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let version: Value = serde_json::from_str(&get(&endpoint, "/version").await.1).unwrap();
    let status: Value = serde_json::from_str(&post(&endpoint, "/v3/maintenance/status", "").await.1).unwrap();
    assert_eq!(version["etcdserver"], status["version"]);
    assert_eq!(version["etcdcluster"], "3.5.0");
    ours.stop().await;
}

#[tokio::test]
async fn a_watch_in_json_is_a_line_for_each_answer() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let client = Client::connect(&endpoint, "a").await;
    let create = r#"{"create_request":{"key":"YS8x"}} {"create_request":{"key":"YS8y"}}"#;
    let mut response = send(&endpoint, Method::POST, "/v3/watch", create).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let mut lines = String::new();
    let mut next = async || loop {
        if let Some((line, rest)) = lines.clone().split_once('\n') {
            rest.clone_into(&mut lines);
            return serde_json::from_str::<Value>(line).unwrap();
        }
        let frame = soon(response.body_mut().frame()).await.unwrap().unwrap();
        lines.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    };
    assert_eq!(next().await["result"]["created"], true);
    assert_eq!(next().await["result"]["watch_id"], "1");
    client.put("2", "v").await;
    let event = next().await;
    assert_eq!(
        (&event["result"]["watch_id"], &event["result"]["events"][0]["kv"]["value"]),
        (&"1".into(), &"dg==".into())
    );
    let Ours { server, .. } = ours;
    let stopped = tokio::spawn(server.shutdown());
    let end = next().await;
    assert_eq!(end["error"]["message"], "etcdserver: server stopped");
    assert_eq!((&end["error"]["grpc_code"], &end["error"]["http_code"]), (&14.into(), &503.into()));
    soon(stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn rules_hold_in_json_and_health_needs_no_right() {
    let ca = Ca::new("ours");
    let ours = Ours::start(AccessRules::ByUser(Vec::new()), None).await;
    let endpoint = ours.endpoint("http");
    let refused = post(&endpoint, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
    let text = "etcdserver: user name is empty";
    assert_eq!(refused, (400, format!("{{\"error\":\"{text}\",\"code\":3,\"message\":\"{text}\"}}")));
    let watch = post(&endpoint, "/v3/maintenance/snapshot", "{}").await;
    assert!(watch.1.starts_with("{\"error\":{\"grpc_code\":"), "{watch:?}");
    for path in ["/health", "/readyz", "/metrics", "/version"] {
        assert_eq!(get(&endpoint, path).await.0, 200, "{path}");
    }
    drop(ca);
    ours.stop().await;
}

#[tokio::test]
async fn a_body_is_as_large_as_a_request_may_be_and_no_larger() {
    let settings = ServiceSettings { max_request_bytes: 1000, ..ServiceSettings::default() };
    let ours = Ours::start_with(AccessRules::Open, None, settings).await;
    let endpoint = ours.endpoint("http");
    let put = |bytes: usize| format!(r#"{{"key":"YQ==","value":"{}"}}"#, "A".repeat(bytes));
    assert_eq!(post(&endpoint, "/v3/kv/put", &put(1000)).await.0, 200);
    let refused = post(&endpoint, "/v3/kv/put", &put(2000)).await;
    assert!(refused.0 == 400 && refused.1.contains("etcdserver: request is too large"), "{refused:?}");
    let refused = post(&endpoint, "/v3/kv/put", &put(1 << 20)).await;
    assert_eq!(refused.0, 429, "{refused:?}");
    // What has no end is not waited for either.
    let refused = send(&endpoint, Method::POST, "/v3/kv/put", &"{".repeat(3 << 20)).await;
    assert_eq!(refused.status(), 429);
    ours.stop().await;
}

#[tokio::test]
async fn gibberish_is_refused_and_the_next_one_is_served() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let garbage: [&[u8]; 5] = [
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"PRI * HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nzzz",
        b"\x16\x03\x01\x02\x00\x01",
    ];
    for bytes in garbage {
        let mut tcp = TcpStream::connect(address(&endpoint)).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Refused or cut, but over.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
    }
    assert_eq!(get(&endpoint, "/health").await.0, 200);
    ours.stop().await;
}

#[tokio::test]
async fn idle_connections_cost_a_place_and_hold_up_no_one() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let mut idle = Vec::new();
    for first in [
        &b""[..],
        b"GET /health HT",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"POST /v3/kv/range HTTP/1.1\r\ncontent-length: 9\r\n\r\n{",
    ] {
        for _ in 0..50 {
            let mut tcp = TcpStream::connect(address(&endpoint)).await.unwrap();
            tcp.write_all(first).await.unwrap();
            idle.push(tcp);
        }
    }
    let in_time = tokio::time::timeout(Duration::from_secs(10), get(&endpoint, "/health"));
    assert_eq!(in_time.await.expect("no one waits for the idle ones").0, 200);
    // Nor does the end of the server.
    ours.stop().await;
}

#[tokio::test]
async fn a_deadline_that_is_over_is_told() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let client = Client::connect(&endpoint, "a").await;
    client.grant(60, 1).await.unwrap();
    client.grant(60, 2).await.unwrap();
    assert_eq!(post(&endpoint, "/v3/lock/lock", r#"{"name":"bA==","lease":1}"#).await.0, 200);
    let (path, second) = ("/v3/lock/lock", r#"{"name":"bA==","lease":2}"#);
    let late = text(send_with(&endpoint, Method::POST, path, second, ("grpc-timeout", "50m")).await).await;
    assert!(late.0 == 504 && late.1.contains("context deadline exceeded"), "{late:?}");
    // And the place in the queue is given up.
    let all = pb::RangeRequest { key: "l/".into(), range_end: "l0".into(), ..Default::default() };
    soon(async { while client.range(all.clone()).await.unwrap().count != 1 {} }).await;
    ours.stop().await;
}

//! How a server ends, and what is there when it comes back.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{Access, AccessRules, Server, ServerOptions};
use tonic::Code;

use crate::store::{Client, Ours, engine_options, soon};

#[tokio::test]
async fn streams_are_told_that_the_server_stops_and_writes_are_there_when_it_is_back() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { key: client.key("a"), ..Default::default() }).await;
    let revision = client.put("a", "1").await;
    assert_eq!(watch.next_event().await.events.len(), 1);
    let header = client.range(client.range_of("a", "b")).await.unwrap().header.unwrap();

    let Ours { server, access, dir } = ours;
    let stopped = tokio::spawn(server.shutdown());
    let end = watch.responses.message().await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
    soon(stopped).await.unwrap().unwrap();

    let options = ServerOptions {
        engine: engine_options(dir.path()),
        listen: vec!["http://127.0.0.1:0".parse().unwrap()],
        listen_metrics: Vec::new(),
        advertise: Vec::new(),
        tls: None,
        access: Access::Rules(access.subscribe()),
    };
    let server = Server::start(options).await.unwrap();
    let client = Client::connect(&format!("http://{}", server.local_addr().unwrap()), "a").await;
    assert_eq!(client.get("a").await.unwrap().mod_revision(), revision);
    let again = client.range(client.range_of("a", "b")).await.unwrap().header.unwrap();
    assert_eq!((again.cluster_id, again.member_id), (header.cluster_id, header.member_id));
    soon(server.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_keep_the_server_from_stopping() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { key: client.key("a"), ..Default::default() }).await;
    // More than fits in what a stream may have under way.
    for _ in 0..20 {
        let value = vec![b'x'; 1_000_000].into();
        let request = pb::PutRequest { key: client.key("a"), value, ..Default::default() };
        soon(client.kv().put(request)).await.unwrap();
    }
    ours.stop().await;
}

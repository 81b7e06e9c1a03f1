//! What a member without a vote answers. Everything here was looked up with a learner of etcd 3.5.16.

use std::path::Path;

use http::uri::PathAndQuery;
use landbridge_kvstore_server::engine::{
    ClusterOptions, ClusterState, EngineOptions, InitialMember, PeerOptions,
};
use landbridge_kvstore_server::grpc::proto::{DESCRIPTORS, etcdserverpb as pb};
use landbridge_kvstore_server::{Access, AccessRules, ListenAddress, ListenUrl, Server, ServerOptions};
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use prost_reflect::DescriptorPool;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::store::{Client, engine_options, soon};
use crate::suite::assert_refused;

const REFUSAL: &str = "etcdserver: rpc not supported for learner";

/// A member of a cluster, reached by the others through a socket in `dir`.
async fn start(dir: &Path, names: &[&str], state: ClusterState) -> Server {
    let socket = |name: &str| dir.join(format!("{name}.peer"));
    let initial: Vec<InitialMember> = names
        .iter()
        .map(|name| InitialMember { name: (*name).to_owned(), peer_urls: peer_urls(dir, name) })
        .collect();
    let own = initial.last().unwrap().clone();
    let listen = ListenUrl { tls: false, address: ListenAddress::Unix(socket(&own.name)) };
    let engine = EngineOptions {
        peers: PeerOptions { listen: vec![listen], advertise: own.peer_urls, tls: None },
        cluster: ClusterOptions { initial, state, token: "test".to_owned(), force_new: false },
        name: own.name.clone(),
        ..engine_options(&dir.join(own.name))
    };
    let (_, rules) = watch::channel(AccessRules::Open);
    let options = ServerOptions {
        engine,
        listen: vec![ListenUrl::http("127.0.0.1:0".parse().unwrap())],
        listen_metrics: Vec::new(),
        advertise: vec!["http://store.example:2379".to_owned()],
        tls: None,
        access: Access::Rules(rules),
    };
    soon(Box::pin(Server::start(options))).await.unwrap()
}

fn peer_urls(dir: &Path, name: &str) -> Vec<String> {
    vec![format!("unix://{}", dir.join(format!("{name}.peer")).display())]
}

async fn client(server: &Server) -> Client {
    Client::connect(&format!("http://{}", server.local_addr().unwrap()), "a").await
}

/// Calls any method with an empty message, and waits for the first word of the answer.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let (path, codec) = (PathAndQuery::try_from(path).unwrap(), ProstCodec::<(), ()>::default());
    let mut answers = soon(client.server_streaming(Request::new(()), path, codec)).await?.into_inner();
    soon(answers.message()).await.map(drop)
}

/// The paths of all methods of the API, and of those for health.
fn methods() -> Vec<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let services = pool.services().collect::<Vec<_>>();
    let methods = services.iter().flat_map(|service| {
        service
            .methods()
            .map(|method| format!("/{}/{}", service.full_name(), method.name()))
            .collect::<Vec<_>>()
    });
    let health = ["Check", "Watch"].map(|method| format!("/grpc.health.v1.Health/{method}"));
    methods.chain(health).collect()
}

#[tokio::test]
async fn a_learner_answers_only_how_it_is_and_what_may_be_old() {
    let dir = tempfile::tempdir().unwrap();
    let voter = Box::pin(start(dir.path(), &["voter"], ClusterState::New)).await;
    let to_voter = client(&voter).await;
    to_voter.put("key", "value").await;
    let mut members = ClusterClient::new(to_voter.channel.clone());
    let request = pb::MemberAddRequest { peer_ur_ls: peer_urls(dir.path(), "learner"), is_learner: true };
    let id = members.member_add(request).await.unwrap().into_inner().member.unwrap().id;
    let learner = Box::pin(start(dir.path(), &["voter", "learner"], ClusterState::Existing)).await;
    let to_learner = client(&learner).await;

    // It knows what it is from the entries that it is given.
    let mut maintenance = MaintenanceClient::new(to_learner.channel.clone());
    soon(async { while !maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().is_learner {} })
        .await;
    let serializable = pb::RangeRequest { serializable: true, ..to_learner.range_of("key", "kez") };
    soon(async { while to_learner.range(serializable.clone()).await.unwrap().kvs.is_empty() {} }).await;
    let linearizable = pb::RangeRequest { serializable: false, ..serializable };
    assert_refused(to_learner.range(linearizable.clone()).await, Code::Unavailable, REFUSAL);

    let all = methods();
    assert!(all.len() > 40, "{all:?}");
    for path in all {
        let outcome = call(&to_learner.channel, &path).await;
        match path.as_str() {
            "/etcdserverpb.Maintenance/Status" => outcome.unwrap(),
            "/etcdserverpb.Maintenance/Snapshot" => {
                assert!(outcome.err().is_none_or(|error| error.message() != REFUSAL));
            }
            _ => {
                let refusal = outcome.unwrap_err();
                assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, REFUSAL), "{path}");
            }
        }
    }

    // With a vote it answers as anyone.
    soon(async { while members.member_promote(pb::MemberPromoteRequest { id }).await.is_err() {} }).await;
    soon(async { while to_learner.range(linearizable.clone()).await.is_err() {} }).await;
    soon(learner.shutdown()).await.unwrap();
    soon(voter.shutdown()).await.unwrap();
}

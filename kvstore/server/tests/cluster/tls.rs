//! Members that show each other certificates.

use std::fs;

use http::uri::PathAndQuery;
use tonic::transport::ClientTlsConfig;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::harness::{Cluster, block_on, put, until, value};
use crate::pki::{Ca, client_tls, connect};

/// What anyone may ask a member who gets in at all: who the members are.
const MEMBERS: &str = "/landbridge.raft.v1.Peer/Members";

/// Asks a member at the port for members. The error is the one of the connection; an answer that is a refusal is one
/// that somebody got who was let in.
async fn ask(endpoint: &str, tls: ClientTlsConfig) -> Result<Result<(), Status>, String> {
    let channel = connect(endpoint, tls).await.map_err(|error| format!("{error:?}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| format!("{error:?}"))?;
    let path = PathAndQuery::from_static(MEMBERS);
    match client.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await {
        // Nobody answered: with TLS 1.3 a client learns only here that its certificate was refused.
        Err(status) if std::error::Error::source(&status).is_some() => Err(format!("{status:?}")),
        answer => Ok(answer.map(drop)),
    }
}

#[test]
fn members_with_certificates_of_one_ca_are_a_cluster() {
    block_on(async {
        let ca = Ca::new("ours");
        let mut cluster = Cluster::with(3, Some(ca.server_files()));
        cluster.start().await;
        for number in 0..3 {
            cluster.engine(number).propose(put(format!("by/{number}"), "x")).await.unwrap();
        }
        cluster.agree().await;

        let gone = cluster.leader().await;
        cluster.stop(gone).await;
        let leader = cluster.leader().await;
        cluster.engine(leader).propose(put("by/two", "x")).await.unwrap();
        cluster.agree().await;
        cluster.restart(gone).await;
        cluster.agree().await;
        assert_eq!(value(cluster.engine(gone), "by/two").as_deref(), Some("x"));

        let added = cluster.grow(gone, false).await;
        cluster.engine(added).propose(put("by/added", "x")).await.unwrap();
        cluster.agree().await;
        for (number, engine) in cluster.running() {
            assert!(engine.status().peer_urls[0].starts_with("https://"), "member {number}");
            assert_eq!(value(engine, "by/added").as_deref(), Some("x"), "member {number}");
        }
        cluster.shutdown().await;
    });
}

#[test]
fn whoever_shows_no_certificate_of_the_ca_is_no_member() {
    block_on(async {
        let (ca, other) = (Ca::new("ours"), Ca::new("theirs"));
        let mut cluster = Cluster::with(1, Some(ca.server_files()));
        cluster.start().await;
        let https = cluster.engine(0).status().peer_urls[0].clone();
        let http = https.replace("https:", "http:");

        ask(&https, client_tls(&ca.pem(), Some(&ca.sign("member")))).await.unwrap().unwrap();
        ask(&https, client_tls(&ca.pem(), Some(&other.sign("member")))).await.unwrap_err();
        ask(&https, client_tls(&ca.pem(), None)).await.unwrap_err();
        ask(&http, ClientTlsConfig::new()).await.unwrap_err();
        // Those who were let in before are as well as ever.
        cluster.engine(0).propose(put("key", "x")).await.unwrap();
        cluster.shutdown().await;
    });
}

#[test]
fn a_member_with_files_of_another_ca_is_alone_until_it_is_given_the_right_ones() {
    block_on(async {
        let (ca, other) = (Ca::new("ours"), Ca::new("theirs"));
        let mut cluster = Cluster::with(3, Some(ca.server_files()));
        let foreign = other.server_files();
        cluster.nodes[2].options.peers.tls = Some(foreign.clone());
        cluster.start().await;
        cluster.engine(0).propose(put("key", "x")).await.unwrap();
        cluster.engine(1).propose(put("key", "y")).await.unwrap();
        let alone = cluster.engine(2);
        assert_eq!((alone.status().leader, value(alone, "key")), (None, None));

        // It looks at its files for each connection, so that it need not start again.
        let right = ca.server_files();
        fs::copy(&right.certificate, &foreign.certificate).unwrap();
        fs::copy(&right.key, &foreign.key).unwrap();
        fs::copy(&right.ca, &foreign.ca).unwrap();
        until("it to follow", || value(cluster.engine(2), "key").as_deref() == Some("y")).await;
        cluster.agree().await;
        cluster.shutdown().await;
    });
}

//! Who gets in.

use std::fs;
use std::time::Duration;

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{Access, AccessRules, ServiceSettings, StartError, TlsError};
use landbridge_lab::requirement::{Requirement, etcd, met};
use pb::kv_client::KvClient;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tonic::transport::ClientTlsConfig;

use crate::pki::{Ca, client_tls, connect};
use crate::store::{Etcd, Ours, soon};

/// Connects and reads something, since in TLS 1.3 a client learns only then that it was refused.
async fn read(endpoint: &str, tls: ClientTlsConfig) -> Result<(), String> {
    let channel = soon(connect(endpoint, tls)).await.map_err(|error| format!("{error:?}"))?;
    let request = pb::RangeRequest { key: "a".into(), ..Default::default() };
    soon(KvClient::new(channel).range(request)).await.map(|_| ()).map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn only_certificates_of_the_configured_ca_get_in() {
    let (ca, other) = (Ca::new("ours"), Ca::new("theirs"));
    let ours = Ours::start(AccessRules::Open, Some(ca.server_files())).await;
    let endpoint = ours.endpoint("https");

    read(&endpoint, client_tls(&ca.pem(), Some(&ca.sign("client")))).await.unwrap();
    let refused = read(&endpoint, client_tls(&ca.pem(), Some(&other.sign("client")))).await.unwrap_err();
    assert!(!refused.contains("etcdserver"), "{refused}");
    read(&endpoint, client_tls(&ca.pem(), None)).await.unwrap_err();
    read(&ours.endpoint("http"), ClientTlsConfig::new()).await.unwrap_err();
    ours.stop().await;
}

/// Beside etcd, which asks for the same.
#[tokio::test]
async fn a_certificate_that_is_not_good_now_and_for_this_lets_nobody_in() {
    use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let ca = Ca::new("ours");
    let server = ca.server_files();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let files = [path(&server.certificate), path(&server.key), path(&server.ca)];
    let flags =
        ["--cert-file", &files[0], "--key-file", &files[1], "--client-cert-auth", "--trusted-ca-file"];
    let etcd = Etcd::start_with(&etcd().unwrap(), &[&flags[..], &[&files[2]]].concat());
    let ours = Ours::start(AccessRules::Open, Some(server)).await;
    let good = client_tls(&ca.pem(), Some(&ca.sign("good")));
    soon(async { while read(&etcd.endpoint, good.clone()).await.is_err() {} }).await;
    read(&ours.endpoint("https"), good).await.unwrap();
    let over = ca.sign_with("over", |params| params.not_after = date_time_ymd(2001, 1, 1));
    let early = ca.sign_with("early", |params| params.not_before = date_time_ymd(2900, 1, 1));
    let servers = ca.sign_with("servers", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let clients = ca.sign_with("clients", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    for (certificate, is_good) in [(over, false), (early, false), (servers, false), (clients, true)] {
        for endpoint in [ours.endpoint("https"), etcd.endpoint.clone()] {
            let outcome = read(&endpoint, client_tls(&ca.pem(), Some(&certificate))).await;
            assert_eq!(outcome.is_ok(), is_good, "{endpoint}, {certificate:?}: {outcome:?}");
        }
    }
    ours.stop().await;
}

#[tokio::test]
async fn what_is_replaced_on_disk_counts_from_the_next_handshake_on() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let files = old.server_files();
    let ours = Ours::start(AccessRules::Open, Some(files.clone())).await;
    let endpoint = ours.endpoint("https");
    let (with_old, with_new) = (
        client_tls(&old.pem(), Some(&old.sign("client"))),
        client_tls(&new.pem(), Some(&new.sign("client"))),
    );
    let established = connect(&endpoint, with_old.clone()).await.unwrap();
    read(&endpoint, with_new.clone()).await.unwrap_err();

    // While certificate and key do not fit together, nobody gets in.
    let replacement = new.server_files();
    fs::copy(&replacement.certificate, &files.certificate).unwrap();
    read(&endpoint, with_old.clone()).await.unwrap_err();
    fs::copy(&replacement.key, &files.key).unwrap();
    fs::copy(&replacement.ca, &files.ca).unwrap();
    read(&endpoint, with_new).await.unwrap();
    read(&endpoint, with_old).await.unwrap_err();

    // Who is in stays in.
    let request = pb::RangeRequest { key: "a".into(), ..Default::default() };
    soon(KvClient::new(established).range(request)).await.unwrap();
    ours.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_holds_up_no_one() {
    let ca = Ca::new("ours");
    let ours = Ours::start(AccessRules::Open, Some(ca.server_files())).await;
    let endpoint = ours.endpoint("https");
    let mut silent = Vec::new();
    for _ in 0..300 {
        let from = TcpSocket::new_v4().unwrap();
        from.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(soon(from.connect(ours.address())).await.unwrap());
    }
    let in_time = read(&endpoint, client_tls(&ca.pem(), Some(&ca.sign("client"))));
    tokio::time::timeout(Duration::from_secs(5), in_time)
        .await
        .expect("no one waits for the silent ones")
        .unwrap();
    ours.stop().await;
    // The server has let go of them.
    for mut connection in silent {
        assert!(matches!(soon(connection.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    }
}

/// Each takes a file descriptor, without which the log cannot go on.
#[tokio::test]
async fn one_user_cannot_take_all_connections() {
    let ca = Ca::new("ours");
    let settings = ServiceSettings { max_connections: 4, ..ServiceSettings::default() };
    let ours = Ours::start_with(AccessRules::Open, Some(ca.server_files()), settings).await;
    let endpoint = ours.endpoint("https");
    let greedy = client_tls(&ca.pem(), Some(&ca.sign("greedy")));
    let other = client_tls(&ca.pem(), Some(&ca.sign("other")));

    let mut held = Vec::new();
    for _ in 0..2 {
        let channel = connect(&endpoint, greedy.clone()).await.unwrap();
        let request = pb::RangeRequest { key: "a".into(), ..Default::default() };
        soon(KvClient::new(channel.clone()).range(request)).await.unwrap();
        held.push(channel);
    }
    read(&endpoint, greedy.clone()).await.unwrap_err();
    read(&endpoint, other).await.unwrap();
    // Who lets go of one may have another.
    held.pop();
    soon(async { while read(&endpoint, greedy.clone()).await.is_err() {} }).await;
    ours.stop().await;
}

#[tokio::test]
async fn a_store_without_usable_files_does_not_start() {
    let ca = Ca::new("ours");
    let good = ca.server_files();
    let dir = tempfile::tempdir().unwrap();
    let (_, access) = tokio::sync::watch::channel(AccessRules::Open);
    let start = async |tls| {
        let options = landbridge_kvstore_server::ServerOptions {
            engine: crate::store::engine_options(dir.path()),
            listen: vec!["https://127.0.0.1:0".parse().unwrap()],
            listen_metrics: Vec::new(),
            advertise: Vec::new(),
            tls: Some(TlsFiles::into(tls)),
            access: Access::Rules(access.clone()),
        };
        landbridge_kvstore_server::Server::start(options).await.map(drop)
    };
    use landbridge_kvstore_server::TlsFiles;
    let missing = TlsFiles { ca: dir.path().join("none"), ..good.clone() };
    assert!(matches!(start(missing).await, Err(StartError::Tls(TlsError::Read { .. }))));
    let key_as_ca = TlsFiles { ca: good.key.clone(), ..good.clone() };
    assert!(matches!(start(key_as_ca).await, Err(StartError::Tls(TlsError::Content { .. }))));
    let unpaired = TlsFiles { key: ca.sign("other").key, ..good };
    assert!(matches!(start(unpaired).await, Err(StartError::Tls(TlsError::Pair { .. }))));
}

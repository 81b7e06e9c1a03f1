//! Where the store listens, and what clients have to show there.

use std::path::Path;

use hyper_util::rt::TokioIo;
use landbridge_kvstore_server::engine::OpenError;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{
    Access, AccessRules, ClientCertificates, Grant, Server, ServerOptions, ServerTls, StartError, TlsVersion,
    TlsVersions, parse_cipher_suites,
};
use pb::kv_client::KvClient;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tower::service_fn;

use crate::http::get;
use crate::pki::{Ca, client_tls, connect};
use crate::store::{engine_options, soon};

async fn start(
    dir: &Path,
    urls: &[&str],
    tls: Option<ServerTls>,
    rules: AccessRules,
) -> Result<Server, StartError> {
    start_with_metrics(dir, urls, &[], tls, rules).await
}

async fn start_with_metrics(
    dir: &Path,
    urls: &[&str],
    metrics: &[&str],
    tls: Option<ServerTls>,
    rules: AccessRules,
) -> Result<Server, StartError> {
    let (_, access) = watch::channel(rules);
    let parsed = |urls: &[&str]| urls.iter().map(|url| url.parse().unwrap()).collect();
    let options = ServerOptions {
        engine: engine_options(dir),
        listen: parsed(urls),
        listen_metrics: parsed(metrics),
        advertise: Vec::new(),
        tls,
        access: Access::Rules(access),
    };
    Server::start(options).await
}

async fn read(channel: Channel) -> Result<i64, String> {
    let request = pb::RangeRequest { key: "a".into(), ..Default::default() };
    let answer = soon(KvClient::new(channel).range(request)).await.map_err(|error| format!("{error:?}"))?;
    Ok(answer.into_inner().header.unwrap().revision)
}

async fn read_from(endpoint: &str, tls: ClientTlsConfig) -> Result<i64, String> {
    read(soon(connect(endpoint, tls)).await.map_err(|error| format!("{error:?}"))?).await
}

async fn unix(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    Endpoint::from_static("http://socket").connect_with_connector(service_fn(connect)).await.unwrap()
}

fn anonymous(ca: &Ca) -> ServerTls {
    ServerTls { clients: ClientCertificates::NotAsked, ..ca.server_files().into() }
}

#[tokio::test]
async fn one_store_is_reached_by_several_ways_at_once() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new("ours"));
    let socket = dir.path().join("socket");
    let urls = ["http://127.0.0.1:0", "https://127.0.0.1:0", &format!("unix://{}", socket.display())];
    let data = dir.path().join("data");
    let server = start(&data, &urls, Some(anonymous(&ca)), AccessRules::Open).await.unwrap();
    let [plain, encrypted, _] = server.listens_on() else { panic!("three were given") };
    assert_eq!(read_from(&plain.to_string(), ClientTlsConfig::new()).await, Ok(1));
    assert_eq!(read_from(&encrypted.to_string(), client_tls(&ca.pem(), None)).await, Ok(1));
    assert_eq!(read(unix(&socket).await).await, Ok(1));

    // Who listens keeps the place.
    let taken = start(&dir.path().join("other"), &urls[2..], None, AccessRules::Open).await;
    assert!(matches!(taken, Err(StartError::Listen { .. })), "{taken:?}");
    soon(server.shutdown()).await.unwrap();
    assert!(!socket.exists());

    // What a killed one left behind is no one's.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let server = start(&data, &urls[2..], None, AccessRules::Open).await.unwrap();
    assert_eq!(read(unix(&socket).await).await, Ok(1));
    soon(server.shutdown()).await.unwrap();
}

/// etcd's `--listen-metrics-urls`: for those who scrape, and cannot or need not show a certificate.
#[tokio::test]
async fn a_url_of_metrics_has_nothing_else() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new("ours"));
    let (urls, metrics) = (["https://127.0.0.1:0"], ["http://127.0.0.1:0"]);
    let tls = Some(ca.server_files().into());
    let server = start_with_metrics(dir.path(), &urls, &metrics, tls, AccessRules::Open).await.unwrap();
    let [url] = server.metrics_listen_on() else { panic!("one was given") };
    let endpoint = url.to_string();
    for (path, part) in [
        ("/metrics", "etcd_server_has_leader 1"),
        ("/health", "\"true\""),
        ("/readyz", "ok"),
        ("/livez", "ok"),
    ] {
        let (status, text) = get(&endpoint, path).await;
        assert!(status == 200 && text.contains(part), "{path}: {status} {text}");
    }
    for path in ["/version", "/v3/kv/range", "/"] {
        assert_eq!(get(&endpoint, path).await.0, 404, "{path}");
    }
    let refused = read_from(&endpoint, ClientTlsConfig::new()).await.unwrap_err();
    assert!(refused.contains("404"), "{refused}");
    soon(server.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_served_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let bare = start(dir.path(), &["https://127.0.0.1:0"], None, AccessRules::Open).await;
    assert!(matches!(bare, Err(StartError::NoCertificate { .. })), "{bare:?}");
    let nowhere = start(dir.path(), &[], None, AccessRules::Open).await;
    assert!(matches!(nowhere, Err(StartError::NowhereToListen)), "{nowhere:?}");
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let over = start(dir.path(), &[&format!("unix://{}", file.display())], None, AccessRules::Open).await;
    assert!(matches!(over, Err(StartError::Listen { .. })), "{over:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

/// A socket in the file system for other members is taken over like one for clients, and nothing else is.
#[tokio::test]
async fn a_file_where_members_are_to_come_in_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("file"), dir.path().join("socket"));
    std::fs::write(&file, "precious").unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let start = async |path: &Path| {
        let mut engine = engine_options(&dir.path().join("data"));
        engine.peers.listen = vec![format!("unix://{}", path.display()).parse().unwrap()];
        let options = ServerOptions {
            engine,
            listen: vec!["http://127.0.0.1:0".parse().unwrap()],
            listen_metrics: Vec::new(),
            advertise: Vec::new(),
            tls: None,
            access: Access::Rules(watch::channel(AccessRules::Open).1),
        };
        Server::start(options).await
    };
    let over = start(&file).await;
    assert!(matches!(&over, Err(StartError::Engine(OpenError::Listen { .. }))), "{over:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let server = start(&socket).await.unwrap();
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    soon(server.shutdown()).await.unwrap();
}

/// etcd: a CA makes certificates a must, `--client-cert-auth` makes their common name a user.
#[tokio::test]
async fn a_certificate_names_a_user_only_where_it_may() {
    let ca = Ca::new("ours");
    let root = Grant { user: "ada".to_owned(), root: true, read: Vec::new(), write: Vec::new() };
    for names_user in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let clients = ClientCertificates::Required { ca: ca.path(), revoked: None, names_user };
        let tls = ServerTls { clients, ..ca.server_files().into() };
        let rules = AccessRules::ByUser(vec![root.clone()]);
        let server = start(dir.path(), &["https://127.0.0.1:0"], Some(tls), rules).await.unwrap();
        let endpoint = server.listens_on()[0].to_string();
        let answer = read_from(&endpoint, client_tls(&ca.pem(), Some(&ca.sign("ada")))).await;
        match answer {
            Ok(_) => assert!(names_user),
            Err(error) => assert!(!names_user && error.contains("user name is empty"), "{error}"),
        }
        let bare = read_from(&endpoint, client_tls(&ca.pem(), None)).await.unwrap_err();
        assert!(!bare.contains("etcdserver"), "{bare}");
        soon(server.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_chosen_version_and_suite_are_spoken() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new("ours"));
    let versions = TlsVersions::new(TlsVersion::V1_2, TlsVersion::V1_2).unwrap();
    let suites = parse_cipher_suites(["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]).unwrap();
    let tls = ServerTls { versions, cipher_suites: suites, ..anonymous(&ca) };
    let server = start(dir.path(), &["https://127.0.0.1:0"], Some(tls), AccessRules::Open).await.unwrap();
    assert_eq!(read_from(&server.listens_on()[0].to_string(), client_tls(&ca.pem(), None)).await, Ok(1));
    soon(server.shutdown()).await.unwrap();

    // The test's key is of an elliptic curve: no suite for RSA fits.
    let suites = parse_cipher_suites(["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]).unwrap();
    let tls = ServerTls { versions, cipher_suites: suites, ..anonymous(&ca) };
    let server = start(dir.path(), &["https://127.0.0.1:0"], Some(tls), AccessRules::Open).await.unwrap();
    read_from(&server.listens_on()[0].to_string(), client_tls(&ca.pem(), None)).await.unwrap_err();
    soon(server.shutdown()).await.unwrap();
}

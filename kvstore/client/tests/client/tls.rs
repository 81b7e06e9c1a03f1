//! Who is trusted, and certificates that change.

use std::fs;
use std::time::Duration;

use landbridge_kvstore_client::{ClientError, ClientOptions, KvClient, TlsFiles};

use crate::certificates::Ca;
use crate::store::{Kind, Store, until_serving};
use crate::view::View;

scenarios! {
    both_sides_show_certificates,
    an_ipv6_address_is_checked_too,
    a_server_of_another_ca_is_refused,
    a_server_with_another_name_is_refused,
    rotated_certificates_are_used_from_the_next_connection_on,
    a_client_that_is_refused_reads_its_files_again,
    files_that_are_missing_are_named,
}

const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

fn client(store: &Store, files: &TlsFiles) -> KvClient {
    let endpoints = vec![store.endpoint().to_owned()];
    let request_timeout = Duration::from_secs(3);
    KvClient::new(ClientOptions { endpoints, tls: Some(files.clone()), request_timeout }).unwrap()
}

async fn both_sides_show_certificates(kind: Kind) {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("ca"));
    let server = ca.issue(folder.path(), "server", &LOOPBACK);
    let store = Store::start_with_tls(kind, "127.0.0.1", Some(server)).await;
    let client = client(&store, &ca.issue(folder.path(), "client", &[]));
    until_serving(&client).await;
    client.put("key", "value", None).await.unwrap();
    assert_eq!(client.get("key").await.unwrap().unwrap().value, "value");
}

async fn an_ipv6_address_is_checked_too(kind: Kind) {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("ca"));
    let server = ca.issue(folder.path(), "server", &LOOPBACK);
    let store = Store::start_with_tls(kind, "[::1]", Some(server)).await;
    until_serving(&client(&store, &ca.issue(folder.path(), "client", &[]))).await;
}

async fn a_server_of_another_ca_is_refused(kind: Kind) {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("ca"));
    let server = ca.issue(folder.path(), "server", &LOOPBACK);
    let store = Store::start_with_tls(kind, "127.0.0.1", Some(server)).await;
    let ours = ca.issue(folder.path(), "client", &[]);
    until_serving(&client(&store, &ours)).await;
    let other = Ca::new("ca").issue(folder.path(), "other", &[]);
    let mistrusting = TlsFiles { ca: other.ca, ..ours };
    let error = client(&store, &mistrusting).put("key", "value", None).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

async fn a_server_with_another_name_is_refused(kind: Kind) {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("ca"));
    let server = ca.issue(folder.path(), "server", &["127.0.0.1"]);
    let mut store = Store::start_with_tls(kind, "127.0.0.1", Some(server)).await;
    let client = client(&store, &ca.issue(folder.path(), "client", &[]));
    until_serving(&client).await;
    store.kill();
    store.place.tls = Some(ca.issue(folder.path(), "server", &["store.example"]));
    store.run().await;
    let refused = async {
        loop {
            let Err(ClientError::Unreachable { source, .. }) = client.get("key").await else { continue };
            if format!("{source:?}").contains("NotValidForName") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
}

async fn rotated_certificates_are_used_from_the_next_connection_on(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let old = Ca::new("old");
    let server = old.issue(folder.path(), "server", &LOOPBACK);
    let mut store = Store::start_with_tls(kind, "127.0.0.1", Some(server)).await;
    let client = client(&store, &old.issue(folder.path(), "client", &[]));
    until_serving(&client).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1).await;

    let new = Ca::new("new");
    new.issue(folder.path(), "client", &[]);
    client.put("k/a", "over the old connection", None).await.unwrap();
    view.until("the first write", |view| view.keys.contains_key("k/a")).await;

    // With this a client that still shows, or trusts, the old ones gets nowhere.
    store.kill();
    new.issue(folder.path(), "server", &LOOPBACK);
    store.run().await;
    until_serving(&client).await;
    client.put("k/b", "over the new one", None).await.unwrap();
    view.until("the second write", |view| view.keys.contains_key("k/b")).await;
    assert_eq!((view.synced, view.lost), (1, 1));
}

async fn a_client_that_is_refused_reads_its_files_again(kind: Kind) {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("ca"));
    let server = ca.issue(folder.path(), "server", &LOOPBACK);
    let store = Store::start_with_tls(kind, "127.0.0.1", Some(server)).await;
    let files = ca.issue(folder.path(), "client", &[]);
    until_serving(&client(&store, &files)).await;
    let stranger = Ca::new("stranger").issue(folder.path(), "stranger", &[]);
    for (from, to) in [(&stranger.certificate, &files.certificate), (&stranger.key, &files.key)] {
        fs::copy(from, to).unwrap();
    }
    let client = client(&store, &files);
    let error = client.put("key", "value", None).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. } | ClientError::Disconnected { .. }),
        "the server's refusal, not a wait: {error:?}"
    );
    ca.issue(folder.path(), "client", &[]);
    until_serving(&client).await;
}

async fn files_that_are_missing_are_named(kind: Kind) {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("ca"));
    let server = ca.issue(folder.path(), "server", &LOOPBACK);
    let store = Store::start_with_tls(kind, "127.0.0.1", Some(server)).await;
    let files = ca.issue(folder.path(), "client", &[]);
    let away = folder.path().join("away");
    fs::rename(&files.key, &away).unwrap();
    let client = client(&store, &files);
    let error = client.get("key").await.unwrap_err();
    assert!(error.to_string().contains(files.key.to_str().unwrap()), "{error}");
    fs::rename(&away, &files.key).unwrap();
    until_serving(&client).await;
}

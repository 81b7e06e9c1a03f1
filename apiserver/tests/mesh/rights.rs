//! Every prefix with every role, over the real socket.

use std::time::SystemTime;

use landbridge_apiserver::pki::Pki;
use landbridge_apiserver::users::User;
use landbridge_kvstore_client::{ClientOptions, KvClient, TlsFiles};
use landbridge_kvstore_schema::ClusterName;

use crate::cluster::{Cluster, eventually};

const PREFIXES: [&str; 16] = [
    "",
    "cilium/",
    "cilium/.heartbeat",
    "cilium/state/",
    "cilium/state/identities/v1/id",
    "cilium/cache/",
    "cilium/cluster-config/",
    "cilium/synced/",
    "cilium/synced/paris/",
    "landbridge/",
    "landbridge/shared/",
    "landbridge/local/",
    "landbridge/health/",
    "landbridge/health/paris1/",
    "landbridge/config/",
    "landbridge/lock/",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_role_reads_and_writes_what_it_should_and_nothing_else() {
    let mut paris = Cluster::start("paris", 1).await;
    paris.describe().await;
    paris.store.put("landbridge/config/readers/lyon", "{}", None).await.unwrap();
    let roles: [(&str, &[&str], &[&str]); 4] = [
        ("admin-paris", &PREFIXES, &PREFIXES[1..]),
        (
            "agent-paris1",
            &[
                "cilium/.heartbeat",
                "cilium/state/",
                "cilium/state/identities/v1/id",
                "cilium/cache/",
                "cilium/cluster-config/",
                "cilium/synced/",
                "cilium/synced/paris/",
                "landbridge/shared/",
                "landbridge/local/",
                "landbridge/health/",
                "landbridge/health/paris1/",
            ],
            &["landbridge/health/paris1/"],
        ),
        (
            "local-paris",
            &[
                "cilium/.heartbeat",
                "cilium/cache/",
                "cilium/cluster-config/",
                "cilium/synced/",
                "cilium/synced/paris/",
            ],
            &[],
        ),
        (
            "remote-lyon",
            &[
                "cilium/.heartbeat",
                "cilium/state/",
                "cilium/state/identities/v1/id",
                "cilium/synced/paris/",
                "landbridge/shared/",
            ],
            &[],
        ),
    ];
    for (user, readable, writable) in roles {
        let client = paris.store_as(user);
        eventually("the user is let in", async || client.get("cilium/.heartbeat").await.ok()).await;
        for prefix in PREFIXES {
            assert_eq!(
                client.list(prefix).await.is_ok(),
                readable.contains(&prefix),
                "{user} reads {prefix:?}"
            );
            if !prefix.is_empty() {
                let key = format!("{prefix}test-of-rights");
                let written = client.put(&key, "x", None).await.is_ok();
                assert_eq!(written, writable.contains(&prefix), "{user} writes {key:?}");
                if written {
                    client.delete(&key).await.unwrap();
                }
            }
        }
    }
    let reader = paris.store_as("remote-lyon");
    assert!(reader.get("cilium/cluster-config/paris").await.unwrap().is_some());
    assert!(reader.get("cilium/cluster-config/lyon").await.is_err());
    assert!(paris.store_as("remote-nice").get("cilium/.heartbeat").await.is_err(), "nice is no reader");
    assert!(paris.store_as("agent-paris2").get("cilium/.heartbeat").await.is_err(), "there is no such node");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_same_name_opens_nothing() {
    let mut paris = Cluster::start("paris", 1).await;
    paris.describe().await;
    let folder = tempfile::tempdir().unwrap();
    let name = ClusterName::new("paris").unwrap();
    let forged = Pki::open(&folder.path().join("pki"), &name, SystemTime::now()).unwrap();
    forged.issue_client(&User::Admin, SystemTime::now()).unwrap().write_to(folder.path()).unwrap();
    let tls = TlsFiles {
        ca: paris.args.data_dir.join("pki/ca.crt"),
        certificate: folder.path().join("client.crt"),
        key: folder.path().join("client.key"),
    };
    let endpoints = paris.args.advertise.clone();
    let request_timeout = std::time::Duration::from_secs(2);
    let client = KvClient::new(ClientOptions { endpoints, tls: Some(tls), request_timeout }).unwrap();
    assert!(client.get("cilium/.heartbeat").await.is_err());
}

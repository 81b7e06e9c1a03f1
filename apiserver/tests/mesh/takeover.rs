//! A replica that does not publish reads peers and writes nothing, until it publishes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use landbridge_apiserver::peers::addresses::Ranges;
use landbridge_apiserver::peers::key_files::KeyFiles;
use landbridge_apiserver::peers::{PeersContext, run};
use landbridge_apiserver::pki::{Certificate, Pki};
use landbridge_apiserver::serve::Stage;
use landbridge_apiserver::store::{OwnRecords, OwnStore, StoreOptions};
use landbridge_apiserver_api::v1::SignCertificateRequest;
use landbridge_kvstore_schema::{ClusterId, ClusterName, Keyspace, MaxClusters, Origin, OwnRecord, Peer};
use tokio::sync::watch;

use crate::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_replica_that_publishes_writes() {
    let mut lyon = Cluster::start("lyon", 2).await;
    let said = lyon.describe().await;
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let (nice, name) = (ClusterName::new("nice").unwrap(), ClusterName::new("lyon").unwrap());
    let origin = Origin {
        keyspace: Keyspace::state(nice.clone()),
        cluster_id: ClusterId::new(3, MaxClusters::Of255).unwrap(),
    };
    let pki = Pki::open(&folder.path().join("pki"), &nice, now).unwrap();
    let options = StoreOptions {
        cluster: nice.clone(),
        folder: folder.path().join("store"),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: vec![],
        server: pki.server(&[], now).unwrap(),
        admin: pki.admin(now).unwrap(),
    };
    let store = OwnStore::start(options).await.unwrap();
    let own = store.client().clone();

    let keys = KeyFiles::open(folder.path().join("peers")).unwrap();
    let request =
        SignCertificateRequest { peer: "nice".to_owned(), certificate_request: keys.request(&name).unwrap() };
    let certificate = lyon.admin.sign_certificate(request).await.unwrap().into_inner().certificate;
    let ca = Certificate::from_pem(&said.ca_certificate).unwrap();
    keys.install(&name, "remote-nice", &certificate, &ca, now).unwrap();
    let peer = Peer {
        id: 2,
        endpoints: said.store_endpoints,
        ca_certificate: said.ca_certificate,
        pod_ranges: vec!["10.2.0.0/16".parse().unwrap()],
        node_addresses: vec![],
        unconfirmed_until: None,
    };
    own.put(&Peer::key(&name).to_string(), peer.encode(), None).await.unwrap();
    // A former peer, for whoever publishes to clean up.
    own.put("cilium/cluster-config/paris", "{}", None).await.unwrap();
    let before = own.list("").await.unwrap().key_values;

    let mut stage = Stage::new();
    let records = OwnRecords::follow(&own, &origin, store.access(), &mut stage);
    let (publishes, publishes_in) = watch::channel(false);
    let (states_out, states) = watch::channel(BTreeMap::new());
    let ranges = Ranges::default();
    let context = PeersContext { own: own.clone(), origin, ranges, records, keys, publishes: publishes_in };
    let mut reading = Stage::new();
    reading.spawn_droppable("reading peers", run(context, states_out));

    eventually("all records of lyon are known here", async || {
        let state = states.borrow().get(&name)?.clone();
        let state = state.borrow().clone();
        (state.counts.admitted.len() == 4).then_some(())
    })
    .await;
    assert_eq!(own.list("").await.unwrap().key_values, before);

    publishes.send_replace(true);
    eventually("the copy is there", async || {
        let canaries = own.list("cilium/synced/lyon/").await.unwrap().key_values.len();
        let is_drained = own.get("cilium/cluster-config/paris").await.unwrap().is_none();
        (canaries == 4 && is_drained).then_some(())
    })
    .await;
    let copy = own.list("cilium/cache/").await.unwrap().key_values;
    assert!(copy.iter().any(|record| record.key == "cilium/cache/ip/v1/lyon/10.2.1.7"));
    reading.shutdown().await.unwrap();
    stage.shutdown().await.unwrap();
    store.shutdown().await.unwrap();
}

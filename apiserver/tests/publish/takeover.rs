//! Publishers at a real etcd: what they write, what they repair, and who goes on when one is gone.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landbridge_apiserver::objects::{Object, Objects};
use landbridge_apiserver::publish::{Publisher, PublisherHandle, PublisherState, Stored, Timing};
use landbridge_kvstore_client::{ClientOptions, KvClient};
use landbridge_kvstore_schema::{HEARTBEAT, PUBLISHER_LOCK};
use landbridge_lab::requirement::{Requirement, etcd, met};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{demo, facts, objects};

const DEADLINE: Duration = Duration::from_secs(20);

/// An etcd of one test, killed when dropped.
struct Etcd {
    child: Child,
    endpoint: String,
    _data: TempDir,
}

impl Etcd {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let url = || {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", free.local_addr().unwrap())
        };
        let (endpoint, peer) = (url(), url());
        let child = Command::new(etcd().unwrap())
            .arg("--data-dir")
            .arg(data.path().join("etcd"))
            .args(["--name", "m", "--initial-cluster", &format!("m={peer}")])
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self { child, endpoint, _data: data };
        let client = started.client();
        let until = Instant::now() + Duration::from_mins(1);
        while let Err(error) = client.probe().await {
            assert!(Instant::now() < until, "etcd does not serve: {error}");
        }
        started
    }

    fn client(&self) -> KvClient {
        let request_timeout = Duration::from_secs(5);
        KvClient::new(ClientOptions { endpoints: vec![self.endpoint.clone()], tls: None, request_timeout })
            .unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A replica that publishes the demo's cluster b.
struct Replica {
    objects: watch::Sender<Arc<Objects>>,
    state: watch::Receiver<PublisherState>,
    handle: PublisherHandle,
    stop: CancellationToken,
}

impl Replica {
    fn start(etcd: &Etcd, declared: Objects) -> Self {
        let (objects, seen) = watch::channel(Arc::new(declared));
        let stop = CancellationToken::new();
        let timing = Timing { full_pass: Duration::from_millis(300), ..Timing::default() };
        let handle = Publisher::spawn_timed(etcd.client(), seen, facts("b", 2), timing, stop.clone());
        Self { objects, state: handle.state(), handle, stop }
    }

    async fn until(&mut self, fits: impl FnMut(&PublisherState) -> bool) -> PublisherState {
        let found = timeout(DEADLINE, self.state.wait_for(fits)).await;
        found.expect("the publisher gets there").unwrap().clone()
    }

    async fn until_synced(&mut self) -> PublisherState {
        self.until(|state| state.publishing && state.synced).await
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.handle.ended()).await.expect("the publisher ends");
    }
}

/// Everything but what changes with each publisher.
async fn content(client: &KvClient) -> Stored {
    let mut found = Stored::new();
    for prefix in ["cilium/", "landbridge/"] {
        let listing = client.list(prefix).await.unwrap();
        found.extend(listing.key_values.into_iter().map(|found| (found.key, found.value.to_vec())));
    }
    found.retain(|key, _| key != HEARTBEAT && key != PUBLISHER_LOCK);
    found
}

async fn until_content(client: &KvClient, what: &str, fits: impl Fn(&Stored) -> bool) {
    let until = Instant::now() + DEADLINE;
    while !fits(&content(client).await) {
        assert!(Instant::now() < until, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_writes_nothing_and_a_change_only_what_changed() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start().await;
    let client = etcd.client();
    let mut first = Replica::start(&etcd, demo("b"));
    let state = first.until_synced().await;
    assert_eq!(state.problems, Vec::<String>::new());
    assert_eq!((state.nodes.len(), state.services.len()), (2, 2));
    assert!(state.services.iter().all(|service| service.address.is_some() && service.global));
    let published = content(&client).await;
    assert!(published.contains_key("cilium/synced/b/cilium/state/services/v1"));
    assert!(client.get(HEARTBEAT).await.unwrap().unwrap().lease != 0);
    first.stop().await;
    assert_eq!(client.get(PUBLISHER_LOCK).await.unwrap(), None, "a publisher that stops gives the lock back");

    let mut second = Replica::start(&etcd, demo("b"));
    second.until_synced().await;
    assert_eq!(content(&client).await, published);
    let versions = client.list("cilium/state/").await.unwrap().key_values;
    assert!(versions.iter().all(|found| found.version == 1), "{versions:?}");

    // The kubelet's part: one pod gets an address.
    let web = objects(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web-b1, namespace: shop, labels: {app: web}}\n\
         spec: {nodeName: b1, containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]}\n\
         status: {podIPs: [{ip: 10.2.1.3}], conditions: [{type: Ready, status: \"True\"}]}\n",
    );
    let mut changed = demo("b");
    changed.insert(Object::Pod(web.pods.into_values().next().unwrap()));
    second.objects.send(Arc::new(changed)).unwrap();
    let state = second.until(|state| state.services.iter().any(|service| service.ready_backends == 1)).await;
    let after = content(&client).await;
    let differs = |key: &&String| after.get(*key) != published.get(*key);
    let keys: Vec<_> = after.keys().filter(differs).map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "cilium/state/ip/v1/default/10.2.1.3",
            "cilium/state/services/v1/b/shop/web",
            "landbridge/local/services/shop/web"
        ]
    );
    assert!(state.revision > 0);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_takes_over_within_five_seconds_of_a_kill() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start().await;
    let client = etcd.client();
    let mut first = Replica::start(&etcd, demo("b"));
    first.until_synced().await;
    let published = content(&client).await;
    let mut second = Replica::start(&etcd, demo("b"));
    sleep(Duration::from_millis(700)).await; // it is waiting now, and would be publishing if it could
    assert!(!second.state.borrow().publishing);

    first.handle.kill();
    let killed = Instant::now();
    second.until_synced().await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(content(&client).await, published);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_loses_its_lock_stops_and_takes_it_again() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start().await;
    let client = etcd.client();
    let mut replica = Replica::start(&etcd, demo("b"));
    replica.until_synced().await;
    let lock = client.get(PUBLISHER_LOCK).await.unwrap().unwrap();
    assert!(lock.lease != 0);
    assert!(client.delete(PUBLISHER_LOCK).await.unwrap());
    let until = Instant::now() + DEADLINE;
    while client.get(PUBLISHER_LOCK).await.unwrap().is_none_or(|found| found.lease == lock.lease) {
        assert!(Instant::now() < until, "the lock is taken again");
        sleep(Duration::from_millis(20)).await;
    }
    replica.until_synced().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_change_is_repaired_and_what_is_theirs_left_alone() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start().await;
    let client = etcd.client();
    let theirs = [
        ("cilium/cluster-config/bb", "another cluster's"),
        ("cilium/cache/nodes/v1/a/a1", "mirrored"),
        ("landbridge/config/peers/a", "set by hand"),
        ("landbridge/shared/drain", "ours, but not the publisher's"),
        ("landbridge/health/b1/report", "an agent's"),
    ];
    for (key, value) in theirs {
        client.put(key, value, None).await.unwrap();
    }
    let mut replica = Replica::start(&etcd, demo("b"));
    replica.until_synced().await;
    let published = content(&client).await;
    for (key, value) in theirs {
        assert_eq!(published[key], value.as_bytes(), "{key}");
    }

    client.delete("cilium/state/nodes/v1/b/b1").await.unwrap();
    client.put("cilium/state/identities/v1/id/131328", "k8s:stolen=;", None).await.unwrap();
    client.put("cilium/state/ip/v1/default/10.2.1.99", "{}", None).await.unwrap();
    client.delete("cilium/synced/b/cilium/state/ip/v1").await.unwrap();
    until_content(&client, "the full pass repairs", |content| {
        content.keys().eq(published.keys())
            && content
                .iter()
                .all(|(key, value)| key.starts_with("cilium/synced/") || published[key] == *value)
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_the_store_are_taken_over_and_those_of_others_not_taken() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start().await;
    let client = etcd.client();
    let key = |number: u32| format!("cilium/state/identities/v1/id/{number}");
    let labels = |app: &str| {
        format!(
            "k8s:app={app};k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;\
             k8s:io.cilium.k8s.namespace.labels.team=storefront;k8s:io.cilium.k8s.policy.cluster=b;\
             k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=shop;"
        )
    };
    client.put(&key(140_000), labels("web"), None).await.unwrap();
    client.put(&key(131_328), labels("other"), None).await.unwrap();
    let mut replica = Replica::start(&etcd, demo("b"));
    replica.until_synced().await;
    let found = content(&client).await;
    let pod = |name: &str| {
        let record = String::from_utf8(found[&format!("landbridge/local/pods/shop/{name}")].clone()).unwrap();
        serde_json::from_str::<serde_json::Value>(&record).unwrap()["identity"].as_u64().unwrap()
    };
    assert_eq!((pod("web-b1"), pod("web-b2")), (140_000, 140_000));
    // The others get numbers that nobody had yet.
    assert_eq!((pod("client-b1"), pod("vault")), (140_001, 140_002));
    // Nobody has it now, but somebody may have had it a minute ago.
    assert_eq!(found[&key(131_328)], labels("other").into_bytes());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_are_not_whole_withdraw_nothing() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start().await;
    let client = etcd.client();
    let mut first = Replica::start(&etcd, demo("b"));
    first.until_synced().await;
    let published = content(&client).await;
    first.stop().await;

    let mut second = Replica::start(&etcd, Objects { whole: false, ..Objects::default() });
    let state = second.until_synced().await;
    assert!(state.problems[0].contains("nothing is withdrawn"), "{:?}", state.problems);
    assert_eq!(content(&client).await, published);
    second.objects.send(Arc::new(Objects::default())).unwrap();
    until_content(&client, "whole objects withdraw", |content| {
        !content
            .keys()
            .any(|key| key.starts_with("cilium/state/nodes/") || key.starts_with("landbridge/local/"))
    })
    .await;
    second.stop().await;
}

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::assert_refused;
use crate::store::{Client, Responses, soon};

async fn time_to_live(client: &Client, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    client.lease().lease_time_to_live(request).await.unwrap().into_inner()
}

async fn revoke(client: &Client, id: i64) -> Result<i64, tonic::Status> {
    let response = client.lease().lease_revoke(pb::LeaseRevokeRequest { id }).await?;
    Ok(response.into_inner().header.unwrap().revision)
}

struct KeepAlive {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    responses: Responses<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    fn open(client: &Client) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut lease = client.lease();
        let call = async move { lease.lease_keep_alive(ReceiverStream::new(receiver)).await };
        Self { requests, responses: Responses::of(call) }
    }

    async fn next(&mut self) -> (i64, i64) {
        let response = self.responses.message().await.unwrap().unwrap();
        assert!(response.header.unwrap().revision > 0);
        (response.id, response.ttl)
    }

    async fn renew(&mut self, id: i64) -> i64 {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
        let (renewed, ttl) = self.next().await;
        assert_eq!(renewed, id);
        ttl
    }
}

pub(crate) async fn a_lease_is_granted_once_and_for_long_enough(client: Client) {
    let granted = client.grant(60, 0).await.unwrap();
    assert!(granted.id > 0 && granted.ttl == 60 && granted.error.is_empty());
    let short = client.grant(0, 0).await.unwrap();
    assert!((1..=3).contains(&short.ttl), "{short:?}");
    let again = client.grant(60, granted.id).await;
    assert_refused(again, Code::FailedPrecondition, "etcdserver: lease already exists");
    let long = client.grant(9_000_000_001, 0).await;
    assert_refused(long, Code::OutOfRange, "etcdserver: too large lease TTL");
    assert_eq!(client.grant(9_000_000_000, 0).await.unwrap().ttl, 9_000_000_000);
    let listed = client.lease().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert!(listed.leases.iter().any(|lease| lease.id == granted.id));
}

pub(crate) async fn keys_go_with_their_lease_at_one_revision(client: Client) {
    let lease = client.grant(60, 0).await.unwrap().id;
    for name in ["c", "a", "b"] {
        client.put_leased(name, "", lease).await.unwrap();
    }
    let mut keys = time_to_live(&client, lease).await.keys;
    keys.sort();
    assert_eq!(keys, [client.key("a"), client.key("b"), client.key("c")]);
    let mut watch = client.watch();
    let request =
        pb::WatchCreateRequest { key: client.key("a"), range_end: client.key("z"), ..Default::default() };
    watch.create(request).await;
    let revision = revoke(&client, lease).await.unwrap();
    let response = watch.next_event().await;
    let gone = |event: &crate::store::pb_kv::Event| event.kv.as_ref().unwrap().clone();
    let gone: Vec<_> = response.events.iter().map(gone).collect();
    assert_eq!(gone.iter().map(|kv| kv.key().to_vec()).collect::<Vec<_>>(), keys, "in the order of the keys");
    assert!(gone.iter().all(|kv| kv.mod_revision() == revision));
    assert_refused(revoke(&client, lease).await, Code::NotFound, "etcdserver: requested lease not found");
}

pub(crate) async fn a_key_has_the_lease_of_its_last_put(client: Client) {
    let (one, other) = (client.grant(60, 0).await.unwrap().id, client.grant(60, 0).await.unwrap().id);
    client.put_leased("moved", "", one).await.unwrap();
    client.put_leased("moved", "", other).await.unwrap();
    client.put_leased("let go", "", one).await.unwrap();
    client.put("let go", "").await;
    let before = client.revision().await;
    assert_eq!(revoke(&client, one).await.unwrap(), before, "nothing was attached to it");
    assert_eq!(client.get("moved").await.unwrap().lease(), other);
    assert_eq!(client.get("let go").await.unwrap().lease(), 0);
    assert_eq!(revoke(&client, other).await.unwrap(), before + 1);
    assert!(client.get("moved").await.is_none());
}

pub(crate) async fn a_lease_that_is_kept_alive_lives_and_one_that_is_not_ends(client: Client) {
    // So long that a busy machine renews and puts in time.
    let kept = client.grant(5, 0).await.unwrap();
    let left = client.grant(5, 0).await.unwrap();
    let mut keep_alive = KeepAlive::open(&client);
    client.put_leased("kept", "", kept.id).await.unwrap();
    client.put_leased("left", "", left.id).await.unwrap();
    soon(async {
        while client.get("left").await.is_some() {
            assert_eq!(keep_alive.renew(kept.id).await, kept.ttl);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(client.get("kept").await.is_some());
    assert_eq!(keep_alive.renew(left.id).await, 0);
    assert_eq!(keep_alive.renew(kept.id).await, kept.ttl, "the stream goes on");
}

pub(crate) async fn unknown_leases_have_no_time_and_are_no_error(client: Client) {
    let response = time_to_live(&client, 4_711).await;
    assert_eq!((response.id, response.ttl, response.granted_ttl, response.keys.len()), (4_711, -1, 0, 0));
    let lease = client.grant(60, 0).await.unwrap().id;
    let response = time_to_live(&client, lease).await;
    assert!((1..=60).contains(&response.ttl) && response.granted_ttl == 60, "{response:?}");

    let mut keep_alive = KeepAlive::open(&client);
    for id in [4_711, lease, 4_712] {
        keep_alive.requests.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
    }
    assert_eq!(keep_alive.next().await, (4_711, 0));
    assert_eq!(keep_alive.next().await, (lease, 60));
    assert_eq!(keep_alive.next().await, (4_712, 0));
}

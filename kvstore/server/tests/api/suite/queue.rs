use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::grpc::proto::{v3electionpb, v3lockpb};
use tonic::transport::Channel;
use tonic::{Code, Status};
use v3electionpb::election_client::ElectionClient;
use v3lockpb::lock_client::LockClient;

use super::assert_refused;
use crate::store::{Client, Responses, soon};

async fn lock(client: &Client, lease: i64) -> Result<v3lockpb::LockResponse, Status> {
    let request = v3lockpb::LockRequest { name: client.key("lock"), lease };
    let mut locks = LockClient::new(client.channel.clone());
    Ok(soon(locks.lock(request)).await?.into_inner())
}

async fn unlock(client: &Client, key: bytes::Bytes) {
    LockClient::new(client.channel.clone()).unlock(v3lockpb::UnlockRequest { key }).await.unwrap();
}

/// How many keys the queue has; waits until there are as many.
async fn queued(client: &Client, expected: i64) {
    soon(async { while client.range(client.range_of("lock/", "lock0")).await.unwrap().count != expected {} })
        .await;
}

pub(crate) async fn a_lock_is_held_by_one_and_then_by_the_next(client: Client) {
    for lease in [101, 102] {
        client.grant(60, lease).await.unwrap();
    }
    let first = lock(&client, 101).await.unwrap();
    assert_eq!(first.key, client.key("lock/65"));
    let waiting = client.clone();
    let second = tokio::spawn(async move { lock(&waiting, 102).await });
    queued(&client, 2).await;
    assert!(!second.is_finished());
    unlock(&client, first.key).await;
    let second = soon(second).await.unwrap().unwrap();
    assert_eq!(second.key, client.key("lock/66"));
    assert!(second.header.unwrap().revision > first.header.unwrap().revision);
    unlock(&client, second.key).await;
    queued(&client, 0).await;
}

pub(crate) async fn who_has_the_lock_has_it_when_it_asks_again(client: Client) {
    client.grant(60, 111).await.unwrap();
    let first = lock(&client, 111).await.unwrap();
    let again = lock(&client, 111).await.unwrap();
    assert_eq!((&first.key, first.header), (&again.key, again.header));
    unlock(&client, first.key).await;
}

pub(crate) async fn a_lock_without_a_lease_gets_one(client: Client) {
    let held = lock(&client, 0).await.unwrap();
    let kv = client.range(pb::RangeRequest { key: held.key.clone(), ..Default::default() }).await.unwrap();
    let lease = kv.kvs[0].lease();
    assert_eq!(held.key, client.key(&format!("lock/{lease:x}")));
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    let lease = client.lease().lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((lease.granted_ttl, &lease.keys[..]), (60, std::slice::from_ref(&held.key)));
    unlock(&client, held.key).await;
}

pub(crate) async fn an_unknown_lease_locks_nothing(client: Client) {
    let text = "etcdserver: requested lease not found";
    assert_refused(lock(&client, 4711).await, Code::Unknown, text);
}

pub(crate) async fn a_waiter_whose_lease_ends_does_not_get_the_lock(client: Client) {
    for lease in [121, 122] {
        client.grant(60, lease).await.unwrap();
    }
    let first = lock(&client, 121).await.unwrap();
    let waiting = client.clone();
    let second = tokio::spawn(async move { lock(&waiting, 122).await });
    queued(&client, 2).await;
    client.lease().lease_revoke(pb::LeaseRevokeRequest { id: 122 }).await.unwrap();
    unlock(&client, first.key).await;
    let second = soon(second).await.unwrap();
    assert_refused(second, Code::Unknown, "mutex: session is expired");
}

pub(crate) async fn a_waiter_that_goes_away_leaves_no_key(client: Client) {
    for lease in [131, 132] {
        client.grant(60, lease).await.unwrap();
    }
    let first = lock(&client, 131).await.unwrap();
    let waiting = client.clone();
    let second = tokio::spawn(async move { lock(&waiting, 132).await });
    queued(&client, 2).await;
    second.abort();
    queued(&client, 1).await;
    unlock(&client, first.key).await;
}

fn elections(client: &Client) -> ElectionClient<Channel> {
    ElectionClient::new(client.channel.clone())
}

pub(crate) async fn an_election_has_one_leader_at_a_time_and_is_observed(client: Client) {
    for lease in [141, 142] {
        client.grant(60, lease).await.unwrap();
    }
    let name = client.key("election");
    let stand = |lease, value: &'static str| {
        let mut elections = elections(&client);
        let request = v3electionpb::CampaignRequest { name: name.clone(), lease, value: value.into() };
        tokio::spawn(async move { elections.campaign(request).await.unwrap().into_inner().leader.unwrap() })
    };
    let ask = v3electionpb::LeaderRequest { name: name.clone() };
    let nobody = elections(&client).leader(ask.clone()).await;
    assert_refused(nobody, Code::Unknown, "election: no leader");
    let (mut observer, question) = (elections(&client), ask.clone());
    let mut observed = Responses::of(async move { observer.observe(question).await });
    let mut seen = async || observed.message().await.unwrap().unwrap().kv.unwrap().value().to_vec();

    let first = soon(stand(141, "one")).await.unwrap();
    assert_eq!((&first.name, &first.key, first.lease), (&name, &client.key("election/8d"), 141));
    assert_eq!(seen().await, b"one");
    let second = stand(142, "two");
    let proclaim = v3electionpb::ProclaimRequest { leader: Some(first.clone()), value: "more".into() };
    elections(&client).proclaim(proclaim.clone()).await.unwrap();
    assert_eq!(seen().await, b"more");
    let leader = elections(&client).leader(ask).await.unwrap().into_inner().kv.unwrap();
    assert_eq!((leader.key(), leader.create_revision()), (&first.key[..], first.rev));

    elections(&client).resign(v3electionpb::ResignRequest { leader: Some(first) }).await.unwrap();
    let second = soon(second).await.unwrap();
    assert_eq!(second.lease, 142);
    assert_eq!(seen().await, b"two");
    assert_refused(elections(&client).proclaim(proclaim).await, Code::Unknown, "election: not leader");
    let text = "\"leader\" field must be provided";
    let without = elections(&client).resign(v3electionpb::ResignRequest::default()).await;
    assert_refused(without, Code::Unknown, text);
}

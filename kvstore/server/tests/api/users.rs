//! Users and roles in the store itself.

use landbridge_kvstore_server::AuthOptions;
use landbridge_kvstore_server::grpc::proto::{authpb, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use pb::watch_client::WatchClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::Channel;

use crate::store::{Client, Ours, Responses, Watch};

/// A request of whoever has the token.
fn by<T>(token: &str, request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

async fn log_in(channel: &Channel, name: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.to_owned(), password: "p".to_owned() };
    AuthClient::new(channel.clone()).authenticate(request).await.unwrap().into_inner().token
}

fn watch(channel: &Channel, token: &str) -> Watch {
    let (requests, receiver) = mpsc::channel(8);
    let request = by(token, ReceiverStream::new(receiver));
    let mut client = WatchClient::new(channel.clone());
    Watch { requests, responses: Responses::of(async move { client.watch(request).await }) }
}

/// Has `root`, and `user`, whose role `role` may read `a` and `b`, and turns users on.
async fn users(channel: &Channel) {
    let mut auth = AuthClient::new(channel.clone());
    for (user, role) in [("root", "root"), ("user", "role")] {
        let add = pb::AuthUserAddRequest { name: user.into(), password: "p".into(), ..Default::default() };
        auth.user_add(add).await.unwrap();
        auth.role_add(pb::AuthRoleAddRequest { name: role.into() }).await.unwrap();
        let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        auth.user_grant_role(grant).await.unwrap();
    }
    for key in ["a", "b"] {
        let read = authpb::permission::Type::Read.into();
        let perm =
            authpb::Permission { perm_type: read, key: key.into(), range_end: bytes::Bytes::default() };
        let grant = pb::AuthRoleGrantPermissionRequest { name: "role".into(), perm: Some(perm) };
        auth.role_grant_permission(grant).await.unwrap();
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

/// In etcd it runs on, for as long as the stream does.
#[tokio::test]
async fn a_running_watch_ends_when_the_role_that_allowed_it_is_revoked() {
    let options = AuthOptions { bcrypt_cost: 4, ..AuthOptions::default() };
    let ours = Ours::start_with_users(tempfile::tempdir().unwrap(), options, None).await;
    let client = Client::connect(&ours.endpoint("http"), "").await;
    let channel = &client.channel;
    users(channel).await;
    let (root, user) = (log_in(channel, "root").await, log_in(channel, "user").await);
    let mut auth = AuthClient::new(channel.clone());
    let mut watch = watch(channel, &user);
    let mut ids = Vec::new();
    for key in ["a", "b"] {
        let request = pb::WatchCreateRequest { key: key.into(), ..Default::default() };
        let response = watch.create(request).await;
        assert!(!response.canceled, "{response:?}");
        ids.push(response.watch_id);
    }
    let put = async |key: &str| {
        let request = pb::PutRequest { key: key.to_owned().into(), ..Default::default() };
        client.kv().put(by(&root, request)).await.unwrap();
    };
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

    put("a").await;
    let response = watch.next_event().await;
    assert_eq!((response.watch_id, response.events.len()), (ids[0], 1));
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "role".into(),
        key: "a".into(),
        range_end: bytes::Bytes::default(),
    };
    auth.role_revoke_permission(by(&root, revoke)).await.unwrap();
    put("a").await;
    put("b").await;
    let end = watch.next_event().await;
    assert_eq!((end.watch_id, end.canceled, &*end.cancel_reason), (ids[0], true, denied));
    let response = watch.next_event().await;
    assert_eq!((response.watch_id, response.events.len()), (ids[1], 1), "the other one goes on");

    let revoke = pb::AuthUserRevokeRoleRequest { name: "user".into(), role: "role".into() };
    auth.user_revoke_role(by(&root, revoke)).await.unwrap();
    put("b").await;
    let end = watch.next_event().await;
    assert_eq!((end.watch_id, end.canceled, &*end.cancel_reason), (ids[1], true, denied));
    ours.stop().await;
}

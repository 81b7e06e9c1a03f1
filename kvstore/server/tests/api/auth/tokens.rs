//! Tokens: where they come in, and when they end.

use landbridge_kvstore_server::AuthOptions;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use tonic::{Code, Request};

use super::{Transcript, User, compare, quick, range};
use crate::store::{Client, Ours};
use crate::suite::assert_refused;

#[tokio::test]
async fn a_token_counts_where_and_as_long_as_it_does_in_etcd() {
    compare(include_str!("tokens.txt"), async |nobody| {
        let mut lines = Transcript::default();
        let root = nobody.rule().await;
        let token = root.token.clone().unwrap();
        let get = async |name: &'static str, token: &str| {
            let mut request = Request::new(range("a", ""));
            request.metadata_mut().insert(name, token.parse().unwrap());
            nobody.kv().range(request).await
        };
        lines.done("token", get("token", &token).await);
        lines.done("authorization", get("authorization", &token).await);
        lines.done("neither", nobody.get("a", "").await);
        let (secret, index) = token.split_once('.').unwrap();
        for wrong in ["", ".", "x", secret, &format!("{secret}.x"), &format!("{secret}.{index}.1"), "x.1"] {
            lines.done("wrong token", get("token", wrong).await);
        }
        let mut both = Request::new(range("a", ""));
        both.metadata_mut().insert("authorization", token.parse().unwrap());
        both.metadata_mut().insert("token", "x.1".parse().unwrap());
        lines.done("a wrong token and a right authorization", nobody.kv().range(both).await);

        root.make("ann", &[(2, "a", "b")]).await;
        let ann = nobody.log_in("ann", "secret").await;
        lines.done("ann", ann.put("a").await);
        let request = pb::AuthUserChangePasswordRequest {
            name: "ann".into(),
            password: "other".into(),
            ..Default::default()
        };
        root.auth().user_change_password(root.ask(request)).await.unwrap();
        lines.done("ann, whose password was changed", ann.put("a").await);
        let again = nobody.log_in("ann", "other").await;
        lines.done("ann again", again.put("a").await);
        root.auth().auth_disable(root.ask(pb::AuthDisableRequest {})).await.unwrap();
        lines.done("a wrong token while nobody is asked", get("token", "x.1").await);
        nobody.enable().await.unwrap();
        lines.done("ann, whose token was of before", again.put("a").await);
        lines
    })
    .await;
}

/// etcd takes the word since 3.5.31.
#[tokio::test]
async fn a_token_may_be_said_to_be_one_of_its_bearer() {
    let ours = Ours::start_with_users(tempfile::tempdir().unwrap(), quick(), None).await;
    let root = User::nobody(Client::connect(&ours.endpoint("http"), "").await.channel).rule().await;
    let bearer = User { token: root.token.as_ref().map(|token| format!("Bearer {token}")), ..root };
    bearer.get("a", "").await.unwrap();
    ours.stop().await;
}

#[tokio::test]
async fn users_outlive_the_process_and_tokens_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::start_with_users(dir, quick(), None).await;
    let root = User::nobody(Client::connect(&ours.endpoint("http"), "").await.channel).rule().await;
    root.make("ann", &[(2, "a", "b")]).await;
    let dir = ours.stop_and_keep().await;
    let ours = Ours::start_with_users(dir, quick(), None).await;
    let channel = Client::connect(&ours.endpoint("http"), "").await.channel;
    assert_refused(
        User::nobody(channel.clone()).get("a", "").await,
        Code::InvalidArgument,
        "etcdserver: user name is empty",
    );
    let root = User { channel: channel.clone(), ..root };
    let (code, text) = (Code::Unauthenticated, "etcdserver: invalid auth token");
    assert_refused(root.get("a", "").await, code, text);
    User::nobody(channel).log_in("ann", "secret").await.put("a").await.unwrap();
    ours.stop().await;
}

#[tokio::test]
async fn signed_tokens_say_of_which_revision_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "a secret").unwrap();
    let token = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display()).parse().unwrap();
    let ours = Ours::start_with_users(dir, AuthOptions { token, ..quick() }, None).await;
    let nobody = User::nobody(Client::connect(&ours.endpoint("http"), "").await.channel);
    let root = nobody.rule().await;
    assert_eq!(root.token.as_ref().unwrap().split('.').count(), 3);
    root.put("a").await.unwrap();
    root.make("ann", &[(2, "a", "b")]).await;
    // Its token is older than the last change now: it still cares for users, and has to log in for keys.
    let old = "etcdserver: revision of auth store is old";
    assert_refused(root.put("a").await, Code::InvalidArgument, old);
    assert_refused(root.get("a", "").await, Code::InvalidArgument, old);
    nobody.log_in("root", "secret").await.put("a").await.unwrap();
    let ann = nobody.log_in("ann", "secret").await;
    ann.put("a").await.unwrap();
    super::assert_denied(ann.put("b").await);
    let forged = User { token: Some("abcdefghijklmnop.3".into()), ..nobody.clone() };
    assert_refused(forged.put("a").await, Code::Unauthenticated, "etcdserver: invalid auth token");
    ours.stop().await;
}

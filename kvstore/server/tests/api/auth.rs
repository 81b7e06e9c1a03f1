//! Users and roles: what is asked of a store, and what it answers, line by line. The lines in `auth/*.txt` are etcd's, word
//! for word, and ours have to be the same. Rights concern a whole store, so that each script has one of its own.

mod etcdctl;
mod keys;
mod leases;
mod management;
mod members;
mod mine;
mod tls;
mod tokens;

use std::fmt::{Debug, Write};

use landbridge_kvstore_server::AuthOptions;
use landbridge_kvstore_server::grpc::proto::{authpb, etcdserverpb as pb};
use landbridge_lab::requirement::{Requirement, etcd, met};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::store::{Client, Etcd, Ours};

/// What was asked and answered.
#[derive(Default)]
struct Transcript(String);

impl Transcript {
    /// Notes an answer by what of it is the same in every store.
    fn note<T, R: Debug>(
        &mut self,
        asked: &str,
        answer: Result<Response<T>, Status>,
        shown: impl FnOnce(T) -> R,
    ) -> Option<()> {
        let answer = answer.map(|answer| shown(answer.into_inner()));
        let written = match &answer {
            Ok(shown) => writeln!(self.0, "{asked}: {shown:?}"),
            Err(status) => writeln!(self.0, "{asked}: {:?} {:?}", status.code(), status.message()),
        };
        written.unwrap();
        answer.ok().map(drop)
    }

    fn done<T>(&mut self, asked: &str, answer: Result<Response<T>, Status>) {
        self.note(asked, answer, |_| ());
    }
}

/// Somebody who asks a store.
#[derive(Clone, Debug)]
struct User {
    channel: Channel,
    token: Option<String>,
}

impl User {
    fn nobody(channel: Channel) -> Self {
        Self { channel, token: None }
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        request
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    async fn authenticate(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        self.auth().authenticate(self.ask(request)).await
    }

    /// The same one with a token.
    async fn log_in(&self, name: &str, password: &str) -> Self {
        let token = self.authenticate(name, password).await.unwrap().into_inner().token;
        Self { token: Some(token), ..self.clone() }
    }

    async fn user_add(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (name, password) = (name.into(), password.into());
        let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
        self.auth().user_add(self.ask(request)).await
    }

    async fn role_add(&self, name: &str) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        self.auth().role_add(self.ask(pb::AuthRoleAddRequest { name: name.into() })).await
    }

    async fn grant_role(
        &self,
        user: &str,
        role: &str,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        self.auth().user_grant_role(self.ask(request)).await
    }

    /// 0 read, 1 write, 2 both.
    async fn grant(
        &self,
        role: &str,
        perm_type: i32,
        key: &'static str,
        range_end: &'static str,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let perm = authpb::Permission { perm_type, key: key.into(), range_end: range_end.into() };
        let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        self.auth().role_grant_permission(self.ask(request)).await
    }

    async fn enable(&self) -> Result<Response<pb::AuthEnableResponse>, Status> {
        self.auth().auth_enable(self.ask(pb::AuthEnableRequest {})).await
    }

    /// Makes a user with a role of the same name.
    async fn make(&self, name: &str, permissions: &[(i32, &'static str, &'static str)]) {
        self.user_add(name, "secret").await.unwrap();
        self.role_add(name).await.unwrap();
        for (kind, key, end) in permissions {
            self.grant(name, *kind, key, end).await.unwrap();
        }
        self.grant_role(name, name).await.unwrap();
    }

    /// Turns rights on and returns the one who has all.
    async fn rule(&self) -> Self {
        self.user_add("root", "secret").await.unwrap();
        self.grant_role("root", "root").await.unwrap();
        self.enable().await.unwrap();
        self.log_in("root", "secret").await
    }

    async fn put(&self, key: &'static str) -> Result<Response<pb::PutResponse>, Status> {
        self.kv().put(self.ask(put(key))).await
    }

    async fn get(&self, key: &'static str, end: &'static str) -> Result<Response<pb::RangeResponse>, Status> {
        self.kv().range(self.ask(range(key, end))).await
    }

    async fn auth_status(&self) -> Result<Response<pb::AuthStatusResponse>, Status> {
        self.auth().auth_status(self.ask(pb::AuthStatusRequest {})).await
    }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), ..Default::default() }
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn keys(response: pb::RangeResponse) -> Vec<bytes::Bytes> {
    response.kvs.into_iter().map(|kv| kv.key().to_vec().into()).collect()
}

/// Passwords that cost nothing to try.
fn quick() -> AuthOptions {
    AuthOptions { bcrypt_cost: 4, ..AuthOptions::default() }
}

/// Runs a script against ours, and against etcd if it is there.
async fn compare(expected: &str, script: impl AsyncFn(User) -> Transcript) {
    let ours = Ours::start_with_users(tempfile::tempdir().unwrap(), quick(), None).await;
    let client = Client::connect(&ours.endpoint("http"), "").await;
    let written = script(User::nobody(client.channel)).await.0;
    ours.stop().await;
    if met(&[Requirement::Etcd]) {
        let etcd = Etcd::start_with(&etcd().unwrap(), &["--bcrypt-cost", "4"]);
        let client = Client::connect(&etcd.endpoint, "").await;
        let etcds = script(User::nobody(client.channel)).await.0;
        assert_lines(&etcds, expected, "etcd's and what is noted as etcd's");
    }
    assert_lines(&written, expected, "ours and etcd's");
}

fn assert_lines(one: &str, other: &str, which: &str) {
    if std::env::var_os("LANDBRIDGE_SHOW_LINES").is_some() {
        println!("{one}");
    }
    let different = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert_eq!(different, None, "{which}");
    assert_eq!(one.lines().count(), other.lines().count(), "{which}:\n{one}");
}

fn assert_denied<T: Debug>(outcome: Result<T, Status>) {
    crate::suite::assert_refused(outcome, Code::PermissionDenied, "etcdserver: permission denied");
}

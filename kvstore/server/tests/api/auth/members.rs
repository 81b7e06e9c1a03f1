//! Users where there are several members: what one knows of them, all do.

use std::path::Path;
use std::time::Duration;

use landbridge_kvstore_server::engine::{
    ClusterOptions, ClusterState, EngineOptions, InitialMember, PeerOptions,
};
use landbridge_kvstore_server::{
    Access, AuthOptions, AuthToken, ListenAddress, ListenUrl, Server, ServerOptions,
};
use landbridge_kvstore_store::Store;
use tonic::Code;

use super::{User, assert_denied, quick};
use crate::store::{Client, engine_options, soon};
use crate::suite::assert_refused;

const MEMBERS: usize = 3;

/// A member that the others reach through a socket in `dir`, and which takes a snapshot often.
async fn start(dir: &Path, number: usize, options: AuthOptions) -> Server {
    let socket = |number: usize| dir.join(format!("{number}.peer"));
    let member = |number: usize| InitialMember {
        name: number.to_string(),
        peer_urls: vec![format!("unix://{}", socket(number).display())],
    };
    let initial: Vec<InitialMember> = (0..MEMBERS).map(member).collect();
    let listen = ListenUrl { tls: false, address: ListenAddress::Unix(socket(number)) };
    let advertise = initial[number].peer_urls.clone();
    let engine = EngineOptions {
        peers: PeerOptions { listen: vec![listen], advertise, tls: None },
        cluster: ClusterOptions {
            initial,
            state: ClusterState::New,
            token: "test".to_owned(),
            force_new: false,
        },
        name: number.to_string(),
        snapshot_entries: 20,
        // So long that a busy machine keeps its leader.
        election_timeout: Duration::from_secs(2),
        heartbeat: Duration::from_millis(100),
        ..engine_options(&dir.join(format!("data-{number}")))
    };
    let options = ServerOptions {
        engine,
        listen: vec![ListenUrl::http("127.0.0.1:0".parse().unwrap())],
        listen_metrics: Vec::new(),
        advertise: vec![format!("http://{number}.example:2379")],
        tls: None,
        access: Access::Store(options),
    };
    Server::start(options).await.unwrap()
}

async fn nobody(server: &Server) -> User {
    User::nobody(Client::connect(&format!("http://{}", server.local_addr().unwrap()), "").await.channel)
}

/// Waits until a member has applied a revision.
async fn catches_up(server: &Server, revision: i64) {
    soon(async {
        while server.engine().read(Store::revision) < revision {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Leaders may change meanwhile: two members have little time on a machine that has much to do.
async fn put_until_done(user: &User, key: &'static str) -> i64 {
    loop {
        match user.put(key).await {
            Ok(response) => return response.into_inner().header.unwrap().revision,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simple_token_of_one_member_counts_at_all() {
    tokens_count_everywhere(quick()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_token_of_one_member_counts_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "a secret").unwrap();
    let token = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display()).parse().unwrap();
    tokens_count_everywhere(AuthOptions { token, ..quick() }).await;
}

async fn tokens_count_everywhere(options: AuthOptions) {
    let dir = tempfile::tempdir().unwrap();
    let starts = (0..MEMBERS).map(|number| start(dir.path(), number, options.clone()));
    let mut servers = futures_util::future::join_all(starts).await;
    let mut channels = Vec::new();
    for server in &servers {
        channels.push(nobody(server).await);
    }
    let root = channels[0].rule().await;
    root.make("ann", &[(2, "a", "b")]).await;
    for by in &channels {
        let ann = by.log_in("ann", "secret").await;
        for user in &channels {
            let there = User { channel: user.channel.clone(), ..ann.clone() };
            there.put("a").await.unwrap();
            there.get("a", "").await.unwrap();
            assert_denied(there.put("b").await);
            assert_denied(there.get("a", "c").await);
        }
    }

    // One is away while others change what ann may do, and comes back with their snapshot.
    let away = servers.pop().unwrap();
    soon(away.shutdown()).await.unwrap();
    let ann = channels[0].log_in("ann", "secret").await;
    let root = channels[1].log_in("root", "secret").await;
    root.grant("ann", 2, "c", "d").await.unwrap();
    let ann = match options.token {
        // Its token says of which users and roles it is.
        AuthToken::Jwt(_) => channels[0].log_in("ann", "secret").await,
        AuthToken::Simple | AuthToken::None => ann,
    };
    // So many that the log no longer has what it missed.
    let mut revision = 0;
    for _ in 0..200 {
        revision = soon(put_until_done(&ann, "c")).await;
    }
    let back = start(dir.path(), 2, options.clone()).await;
    catches_up(&back, revision).await;
    let nobody = nobody(&back).await;
    let there = User { channel: nobody.channel.clone(), ..ann.clone() };
    match options.token {
        AuthToken::Jwt(_) => drop(there.put("c").await.unwrap()),
        // As in etcd: tokens are in the memory of those who were there, and clients log in again.
        AuthToken::Simple | AuthToken::None => {
            let text = "etcdserver: invalid auth token";
            assert_refused(there.put("c").await, Code::Unauthenticated, text);
        }
    }
    let again = nobody.log_in("ann", "secret").await;
    again.put("c").await.unwrap();
    assert_denied(again.put("b").await);
    let elsewhere = User { channel: channels[1].channel.clone(), ..again };
    elsewhere.put("c").await.unwrap();
    for server in servers.into_iter().chain([back]) {
        soon(server.shutdown()).await.unwrap();
    }
}

//! A store to test: ours inside of this process, or etcd as a process of its own. Both on loopback.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::engine::EngineOptions;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::wal::WalOptions;
use landbridge_kvstore_server::{
    Access, AccessRules, AuthOptions, ListenUrl, Server, ServerOptions, ServiceSettings, TlsFiles,
};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// How often quiet watches are told how far they are.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Nothing that a test waits for takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits for what has to come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes within the patience of the tests")
}

/// A client of a store, whichever it is.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub channel: Channel,
    /// Begins every key of one check, so that checks do not see each other.
    pub prefix: String,
}

impl Client {
    pub(crate) async fn connect(endpoint: &str, prefix: &str) -> Self {
        let channel = Channel::from_shared(endpoint.to_owned()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let channel = loop {
            match channel.connect().await {
                Ok(channel) => break channel,
                Err(error) => assert!(Instant::now() < deadline, "{endpoint}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self { channel, prefix: prefix.to_owned() }
    }

    pub(crate) fn key(&self, name: &str) -> bytes::Bytes {
        format!("{}/{name}", self.prefix).into()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    /// Puts a key and returns the revision.
    pub(crate) async fn put(&self, name: &str, value: &str) -> i64 {
        self.put_leased(name, value, 0).await.unwrap()
    }

    pub(crate) async fn put_leased(&self, name: &str, value: &str, lease: i64) -> Result<i64, Status> {
        let value = value.to_owned().into();
        let request = pb::PutRequest { key: self.key(name), value, lease, ..Default::default() };
        Ok(self.kv().put(request).await?.into_inner().header.unwrap().revision)
    }

    /// All keys of the check, named without the prefix, from here on.
    pub(crate) fn range_of(&self, name: &str, end: &str) -> pb::RangeRequest {
        pb::RangeRequest { key: self.key(name), range_end: self.key(end), ..Default::default() }
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(self.kv().range(request).await?.into_inner())
    }

    pub(crate) async fn get(&self, name: &str) -> Option<pb_kv::KeyValue> {
        let request = pb::RangeRequest { key: self.key(name), ..Default::default() };
        self.range(request).await.unwrap().kvs.pop()
    }

    pub(crate) async fn delete(&self, name: &str) -> i64 {
        let request = pb::DeleteRangeRequest { key: self.key(name), ..Default::default() };
        self.kv().delete_range(request).await.unwrap().into_inner().header.unwrap().revision
    }

    pub(crate) async fn revision(&self) -> i64 {
        let request = pb::RangeRequest { key: "\0".into(), count_only: true, ..Default::default() };
        self.range(request).await.unwrap().header.unwrap().revision
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        Ok(self.kv().txn(request).await?.into_inner())
    }

    pub(crate) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = pb::CompactionRequest { revision, physical: true };
        self.kv().compact(request).await.map(|_| ())
    }

    pub(crate) async fn grant(&self, ttl: i64, id: i64) -> Result<pb::LeaseGrantResponse, Status> {
        Ok(self.lease().lease_grant(pb::LeaseGrantRequest { ttl, id }).await?.into_inner())
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch::open(self.channel.clone())
    }
}

pub(crate) use landbridge_kvstore_server::grpc::proto::mvccpb as pb_kv;

/// The answers of a stream. etcd does not say a word, not even that the stream is open, before there is an answer.
#[derive(Debug)]
pub(crate) struct Responses<T>(Opening<T>);

#[derive(Debug)]
enum Opening<T> {
    Waiting(JoinHandle<Result<Response<Streaming<T>>, Status>>),
    Open(Box<Streaming<T>>),
}

impl<T: Send + 'static> Responses<T> {
    pub(crate) fn of(
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    ) -> Self {
        Self(Opening::Waiting(tokio::spawn(call)))
    }

    pub(crate) async fn message(&mut self) -> Result<Option<T>, Status> {
        if let Opening::Waiting(call) = &mut self.0 {
            self.0 = Opening::Open(Box::new(soon(call).await.unwrap()?.into_inner()));
        }
        let Opening::Open(responses) = &mut self.0 else { unreachable!("it was opened") };
        soon(responses.message()).await
    }
}

/// A stream of watches.
pub(crate) struct Watch {
    pub requests: mpsc::Sender<pb::WatchRequest>,
    pub responses: Responses<pb::WatchResponse>,
}

impl Watch {
    pub(crate) fn open(channel: Channel) -> Self {
        Self::open_as(channel, None)
    }

    /// A stream of whom the token names.
    pub(crate) fn open_as(channel: Channel, token: Option<&str>) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        Self { requests, responses: Responses::of(async move { client.watch(request).await }) }
    }

    pub(crate) async fn send(&self, request: impl Into<pb::watch_request::RequestUnion>) {
        let request_union = Some(request.into());
        self.requests.send(pb::WatchRequest { request_union }).await.unwrap();
    }

    pub(crate) async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(pb::watch_request::RequestUnion::CreateRequest(request)).await;
        let response = self.next().await;
        assert!(response.created, "{response:?}");
        response
    }

    /// Creates a watch on a stream where others may speak meanwhile.
    pub(crate) async fn create_behind(&mut self, request: pb::WatchCreateRequest) {
        self.send(pb::watch_request::RequestUnion::CreateRequest(request)).await;
        while !self.next().await.created {}
    }

    pub(crate) async fn cancel(&self, watch_id: i64) {
        self.send(pb::watch_request::RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
    }

    pub(crate) async fn request_progress(&self) {
        self.send(pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.unwrap().expect("the stream goes on")
    }

    /// The next response that is about changes or an end, and no news of progress.
    pub(crate) async fn next_event(&mut self) -> pb::WatchResponse {
        loop {
            let response = self.next().await;
            if !response.events.is_empty() || response.canceled || response.created {
                return response;
            }
        }
    }
}

/// Our store, in a folder of its own.
pub(crate) struct Ours {
    pub server: Server,
    pub access: watch::Sender<AccessRules>,
    pub dir: TempDir,
}

pub(crate) fn engine_options(dir: &Path) -> EngineOptions {
    EngineOptions {
        wal: WalOptions { segment_bytes: 1 << 20, spares: 0 },
        election_timeout: Duration::from_millis(300),
        heartbeat: Duration::from_millis(50),
        ..EngineOptions::new(dir)
    }
}

impl Ours {
    pub(crate) async fn start(rules: AccessRules, tls: Option<TlsFiles>) -> Self {
        Self::start_with(rules, tls, ServiceSettings::default()).await
    }

    pub(crate) async fn start_with(
        rules: AccessRules,
        tls: Option<TlsFiles>,
        settings: ServiceSettings,
    ) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), rules, tls, settings).await
    }

    /// The store that is in a folder, or a new one.
    pub(crate) async fn start_in(
        dir: TempDir,
        rules: AccessRules,
        tls: Option<TlsFiles>,
        settings: ServiceSettings,
    ) -> Self {
        let (access, receiver) = watch::channel(rules);
        Self { access, ..Self::start_as(dir, Access::Rules(receiver), tls, settings).await }
    }

    /// A store that has users and roles of its own.
    pub(crate) async fn start_with_users(dir: TempDir, options: AuthOptions, tls: Option<TlsFiles>) -> Self {
        Self::start_as(dir, Access::Store(options), tls, ServiceSettings::default()).await
    }

    async fn start_as(
        dir: TempDir,
        access: Access,
        tls: Option<TlsFiles>,
        settings: ServiceSettings,
    ) -> Self {
        let listen = ListenUrl { tls: tls.is_some(), ..ListenUrl::http("127.0.0.1:0".parse().unwrap()) };
        let options = ServerOptions {
            engine: engine_options(dir.path()),
            listen: vec![listen],
            listen_metrics: Vec::new(),
            advertise: vec!["https://store.example:2379".to_owned()],
            tls: tls.map(Into::into),
            access,
        };
        let settings = ServiceSettings { progress_interval: PROGRESS_INTERVAL, ..settings };
        let server = Server::start_with(options, settings).await.unwrap();
        Self { server, access: watch::Sender::new(AccessRules::Open), dir }
    }

    pub(crate) fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.address().port())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop_and_keep().await;
    }

    /// Stops it and returns the folder with all that was in it.
    pub(crate) async fn stop_and_keep(self) -> TempDir {
        soon(self.server.shutdown()).await.unwrap();
        self.dir
    }
}

/// Real etcd, which dies with this.
pub(crate) struct Etcd {
    process: Child,
    pub endpoint: String,
    _dir: TempDir,
}

impl Etcd {
    pub(crate) fn start(binary: &Path) -> Self {
        Self::start_with(binary, &[])
    }

    /// Clients come by TLS if there is a certificate among the flags.
    pub(crate) fn start_with(binary: &Path, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // etcd cannot say which free port it took. Both are held until it starts.
        let hold = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, peers) = (hold(), hold());
        let url = |of: &TcpListener| format!("http://{}", of.local_addr().unwrap());
        let (mut endpoint, peer) = (url(&clients), url(&peers));
        if flags.contains(&"--cert-file") {
            endpoint = endpoint.replace("http:", "https:");
        }
        let mut command = Command::new(binary);
        command.arg("--data-dir").arg(dir.path().join("etcd"));
        command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
        command.args(["--experimental-watch-progress-notify-interval", "100ms", "--log-level", "panic"]);
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        drop((clients, peers));
        let process = command.spawn().unwrap();
        Self { process, endpoint, _dir: dir }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

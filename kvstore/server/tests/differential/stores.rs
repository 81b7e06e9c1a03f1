//! The two stores, new for each sequence: ours inside of this process, etcd beside it, both on loopback with the same limits.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::engine::EngineOptions;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::wal::WalOptions;
use landbridge_kvstore_server::{Access, AuthOptions, ListenUrl, Server, ServerOptions, ServiceSettings};
use pb::cluster_client::ClusterClient;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::Channel;

/// The largest request, so small that it can be exceeded often.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 << 10;
/// The least work for a password: passwords are not what is looked at.
const BCRYPT_COST: u32 = 4;
/// How often quiet watches are told how far they are; the least that etcd accepts.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Nothing that is waited for takes as long, even on a machine that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Both of something: ours and etcd's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Both<T> {
    pub ours: T,
    pub etcd: T,
}

impl<T> Both<T> {
    /// Each with the name of its store.
    pub(crate) fn each(&mut self) -> [(&'static str, &mut T); 2] {
        [("ours", &mut self.ours), ("etcd", &mut self.etcd)]
    }
}

/// Both stores, running.
pub(crate) struct Stores {
    ours: Ours,
    etcd: Etcd,
}

impl Stores {
    pub(crate) async fn start(etcd: &Path, has_users: bool) -> Self {
        Self { ours: Ours::start().await, etcd: Etcd::start(etcd, has_users).await }
    }

    /// A connection to each.
    pub(crate) async fn connect(&self) -> Both<Channel> {
        Both { ours: connect(&self.ours.endpoint()).await, etcd: connect(&self.etcd.endpoint).await }
    }

    pub(crate) async fn stop(self) {
        self.ours.server.shutdown().await.unwrap();
    }
}

async fn connect(endpoint: &str) -> Channel {
    let channel = Channel::from_shared(endpoint.to_owned()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match channel.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < deadline, "{endpoint}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the files of all that run at a time take at most, in bytes: each etcd's log begins with twice 64 MiB.
const ROOM: u64 = 4 << 30;

/// A folder in memory where there is room for all that run at a time: what a sync costs is not looked at here.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = tempfile::Builder::new();
    let free = rustix::fs::statvfs(memory).map_or(0, |about| about.f_bavail * about.f_frsize);
    if free >= ROOM { folder.tempdir_in(memory) } else { folder.tempdir() }.unwrap()
}

struct Ours {
    server: Server,
    _folder: TempDir,
}

impl Ours {
    async fn start() -> Self {
        let folder = folder();
        let engine = EngineOptions {
            wal: WalOptions { segment_bytes: 4 << 20, spares: 0 },
            ..EngineOptions::new(folder.path())
        };
        let listen = vec![ListenUrl::http("127.0.0.1:0".parse().unwrap())];
        let access = Access::Store(AuthOptions { bcrypt_cost: BCRYPT_COST, ..AuthOptions::default() });
        let options = ServerOptions {
            engine,
            listen,
            listen_metrics: Vec::new(),
            advertise: Vec::new(),
            tls: None,
            access,
        };
        let settings = ServiceSettings {
            max_request_bytes: MAX_REQUEST_BYTES,
            progress_interval: PROGRESS_INTERVAL,
            ..ServiceSettings::default()
        };
        let server = Server::start_with(options, settings).await.unwrap();
        Self { server, _folder: folder }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.server.local_addr().unwrap())
    }
}

/// Real etcd, which dies with this.
struct Etcd {
    process: Child,
    endpoint: String,
    folder: TempDir,
}

impl Etcd {
    /// Starts it on ports that are free. It cannot say which ones it took; if another program is faster, it ends, and is
    /// started anew.
    async fn start(binary: &Path, has_users: bool) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let mut etcd = Self::spawn(binary, has_users);
        while !etcd.answers().await {
            assert!(Instant::now() < deadline, "etcd does not answer on {}", etcd.endpoint);
            if etcd.process.try_wait().unwrap().is_some() {
                etcd = Self::spawn(binary, has_users);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        etcd
    }

    fn spawn(binary: &Path, has_users: bool) -> Self {
        let folder = folder();
        // Both are held until it starts.
        let hold = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, peers) = (hold(), hold());
        let url = |of: &TcpListener| format!("http://{}", of.local_addr().unwrap());
        let (endpoint, peer) = (url(&clients), url(&peers));
        let mut command = Command::new(binary);
        let name = name_for(&folder);
        command.args(["--name", name, "--initial-cluster", &format!("{name}={peer}")]);
        command.arg("--data-dir").arg(folder.path().join("etcd"));
        command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        let (size, cost) = (MAX_REQUEST_BYTES.to_string(), BCRYPT_COST.to_string());
        command.args(["--max-request-bytes", &size, "--bcrypt-cost", &cost]);
        let interval = format!("{}ms", PROGRESS_INTERVAL.as_millis());
        command.args(["--experimental-watch-progress-notify-interval", &interval, "--log-level", "panic"]);
        if has_users {
            // A user that it has deleted is still there for who asks for a token, until a batch of changes is on disk.
            command.args(["--backend-batch-limit", "1"]);
        }
        // Ten at a time on a few processors: one thread each switches less, and there is memory for more garbage.
        command.arg("--unsafe-no-fsync").envs([("GOMAXPROCS", "1"), ("GOGC", "800")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        drop((clients, peers));
        Self { process: command.spawn().unwrap(), endpoint, folder }
    }

    /// Whether it is this one that answers there.
    async fn answers(&self) -> bool {
        let ask = async {
            let mut client = ClusterClient::connect(self.endpoint.clone()).await.ok()?;
            let asked = client.member_list(pb::MemberListRequest { linearizable: true }).await;
            asked.ok()?.into_inner().members.into_iter().next()
        };
        let answer = timeout(Duration::from_secs(5), ask).await;
        answer.is_ok_and(|member| member.is_some_and(|member| member.name == name_for(&self.folder)))
    }
}

/// What it is told to call itself, which no other does.
fn name_for(folder: &TempDir) -> &str {
    folder.path().file_name().and_then(|name| name.to_str()).unwrap()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

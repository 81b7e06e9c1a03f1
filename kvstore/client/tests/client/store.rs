//! The stores that the scenarios run against.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use landbridge_kvstore_client::{ClientOptions, KvClient, TlsFiles};
use landbridge_kvstore_server::engine::{ClusterOptions, EngineOptions};
use landbridge_kvstore_server::{Access, AuthOptions, ListenAddress, ListenUrl, Server, ServerOptions};
use landbridge_lab::requirement::etcd;
use tempfile::TempDir;

/// How to run a store. What it returns kills the store when dropped, without a chance to tidy up.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    run: fn(Place) -> Starting,
}

type Starting = Pin<Box<dyn Future<Output = Box<dyn Send>> + Send>>;

pub(crate) const ETCD: Kind = Kind { run: |place| Box::pin(std::future::ready(run_etcd(&place))) };

pub(crate) const OURS: Kind = Kind { run: |place| Box::pin(run_ours(place)) };

/// Where a store runs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    /// The URL for clients.
    pub(crate) endpoint: String,
    /// For members of the same cluster.
    pub(crate) peer: String,
    /// Goes into the id of the cluster.
    pub(crate) token: String,
    /// The server's files, and the CA of the clients that it takes.
    pub(crate) tls: Option<TlsFiles>,
}

/// A store of one test.
pub(crate) struct Store {
    kind: Kind,
    pub(crate) place: Place,
    running: Option<Box<dyn Send>>,
    folder: TempDir,
    data_folders: u32,
}

impl Store {
    pub(crate) async fn start(kind: Kind) -> Self {
        let store = Self::start_with_tls(kind, "127.0.0.1", None).await;
        until_serving(&store.client()).await;
        store
    }

    /// Does not wait until it serves.
    pub(crate) async fn start_with_tls(kind: Kind, host: &str, tls: Option<TlsFiles>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let place = Place {
            data: folder.path().join("data-0"),
            endpoint: format!("{scheme}://{host}:{}", free_port(host)),
            peer: format!("http://127.0.0.1:{}", free_port("127.0.0.1")),
            token: "first".to_owned(),
            tls,
        };
        let mut store = Self { kind, place, running: None, folder, data_folders: 0 };
        store.run().await;
        store
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.place.endpoint
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        self.place.endpoint.split_once("://").unwrap().1
    }

    pub(crate) fn client(&self) -> KvClient {
        client_of(&[self.endpoint()])
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// At the same place.
    pub(crate) async fn run(&mut self) {
        self.running = Some((self.kind.run)(self.place.clone()).await);
    }

    /// Replaces it by an empty one at the same place.
    pub(crate) async fn replace(&mut self, token: &str) {
        self.kill();
        self.data_folders += 1;
        self.place.data = self.folder.path().join(format!("data-{}", self.data_folders));
        token.clone_into(&mut self.place.token);
        self.run().await;
    }

    /// Forgets all revisions before `revision`.
    pub(crate) async fn compact(&self, revision: i64) {
        let mut client = etcd_client::Client::connect([self.endpoint()], None).await.unwrap();
        client.compact(revision, None).await.unwrap();
    }
}

pub(crate) fn client_of(endpoints: &[&str]) -> KvClient {
    let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
    let request_timeout = Duration::from_mins(1);
    KvClient::new(ClientOptions { endpoints, tls: None, request_timeout }).unwrap()
}

pub(crate) async fn until_serving(client: &KvClient) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while let Err(error) = client.probe().await {
        assert!(Instant::now() < deadline, "the store does not serve: {error} ({error:?})");
    }
}

/// A port that stays free while its store is down: connections of other tests take theirs from 32768 on by default.
fn free_port(host: &str) -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap();
    let is_free = |port: &u16| !taken.contains(port) && TcpListener::bind(format!("{host}:{port}")).is_ok();
    let port = std::iter::repeat_with(|| fastrand::u16(12_000..32_000)).find(is_free).unwrap();
    taken.insert(port);
    port
}

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn run_etcd(place: &Place) -> Box<dyn Send> {
    let mut command = Command::new(etcd().expect("scenarios with etcd run where there is one"));
    command.args(["--name", "member", "--unsafe-no-fsync", "--log-level", "error"]);
    command.arg("--data-dir").arg(&place.data);
    command.args(["--listen-client-urls", &place.endpoint, "--advertise-client-urls", &place.endpoint]);
    command.args(["--listen-peer-urls", &place.peer, "--initial-advertise-peer-urls", &place.peer]);
    command.args([
        "--initial-cluster",
        &format!("member={}", place.peer),
        "--initial-cluster-token",
        &place.token,
    ]);
    if let Some(tls) = &place.tls {
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
        command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Box::new(Process(command.spawn().unwrap()))
}

/// The library of the server: dropping it ends it at once.
async fn run_ours(place: Place) -> Box<dyn Send> {
    let (scheme, address) = place.endpoint.split_once("://").unwrap();
    let listen = ListenUrl { tls: scheme == "https", address: ListenAddress::Tcp(address.parse().unwrap()) };
    let tls = place.tls.as_ref().map(|files| {
        let files = landbridge_kvstore_server::TlsFiles {
            ca: files.ca.clone(),
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        };
        files.into()
    });
    let options = || {
        let engine = EngineOptions {
            cluster: ClusterOptions { token: place.token.clone(), ..ClusterOptions::default() },
            ..EngineOptions::new(&place.data)
        };
        ServerOptions {
            engine,
            listen: vec![listen.clone()],
            listen_metrics: Vec::new(),
            advertise: vec![place.endpoint.clone()],
            tls: tls.clone(),
            access: Access::Store(AuthOptions::default()),
        }
    };
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        // One that was dropped ends by and by.
        match Server::start(options()).await {
            Ok(server) => return Box::new(server),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

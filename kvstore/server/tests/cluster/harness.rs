//! Clusters whose members can be stopped, started again and cut off.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use landbridge_kvstore_server::engine::{
    ClusterOptions, ClusterState, Command, Direction, Engine, EngineOptions, InitialMember, OpenError,
    PeerOptions,
};
use landbridge_kvstore_server::wal::{WalError, WalOptions};
use landbridge_kvstore_server::{ListenAddress, ListenUrl, TlsFiles};
use landbridge_kvstore_store::{KeyRange, PutRequest, RangeRequest, Store};
use tempfile::TempDir;

/// Within this, everything that a test waits for happens, or never.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// Waits until something holds that nobody tells.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

/// What a key holds at a member, as far as it has come.
pub(crate) fn value(engine: &Engine, key: &str) -> Option<String> {
    let range = KeyRange::Single(Bytes::copy_from_slice(key.as_bytes()));
    let found = engine.read(|store| store.range(&RangeRequest::new(range)).unwrap().kvs.first().cloned());
    found.map(|kv| String::from_utf8(kv.value().to_vec()).unwrap())
}

/// A member that runs or not; its files outlive it.
pub(crate) struct Node {
    pub(crate) options: EngineOptions,
    pub(crate) engine: Option<Engine>,
}

impl Node {
    pub(crate) async fn start(&mut self) -> Result<(), OpenError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Engine::open(self.options.clone()).await {
                // A member that was dropped ends by and by.
                Err(OpenError::Wal(WalError::InUse { .. })) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                outcome => {
                    self.engine = Some(outcome?);
                    return Ok(());
                }
            }
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) dir: TempDir,
    tls: Option<TlsFiles>,
    token: String,
}

impl Cluster {
    /// So many members that are new, not started.
    pub(crate) fn new(size: usize) -> Self {
        Self::with(size, None)
    }

    pub(crate) fn with(size: usize, tls: Option<TlsFiles>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { nodes: Vec::new(), dir, tls, token: "test".to_owned() };
        let initial: Vec<InitialMember> = (0..size).map(|number| cluster.initial(number)).collect();
        for number in 0..size {
            let options = cluster.options(number, initial.clone(), ClusterState::New);
            cluster.nodes.push(Node { options, engine: None });
        }
        cluster
    }

    fn socket(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("peer-{number}"))
    }

    /// Where the others reach a member: a socket in the file system, which no other test takes; a port for TLS.
    fn initial(&self, number: usize) -> InitialMember {
        let url = if self.tls.is_some() {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            format!("https://localhost:{}", free.port())
        } else {
            format!("unix://{}", self.socket(number).display())
        };
        InitialMember { name: format!("member-{number}"), peer_urls: vec![url] }
    }

    fn options(&self, number: usize, initial: Vec<InitialMember>, state: ClusterState) -> EngineOptions {
        let own = initial.iter().find(|member| member.name == format!("member-{number}")).unwrap().clone();
        let listen = match own.peer_urls[0].strip_prefix("https://localhost:") {
            Some(port) => ListenUrl::https(([127, 0, 0, 1], port.parse().unwrap()).into()),
            None => ListenUrl { tls: false, address: ListenAddress::Unix(self.socket(number)) },
        };
        EngineOptions {
            name: own.name,
            cluster: ClusterOptions { initial, state, token: self.token.clone(), force_new: false },
            peers: PeerOptions { listen: vec![listen], advertise: own.peer_urls, tls: self.tls.clone() },
            client_urls: vec![format!("http://client-{number}:2379")],
            wal: WalOptions { segment_bytes: 64 << 10, spares: 1 },
            snapshot_entries: 50,
            election_timeout: Duration::from_millis(500),
            heartbeat: Duration::from_millis(50),
            ..EngineOptions::new(self.dir.path().join(format!("data-{number}")))
        }
    }

    /// Starts all members at once, and waits until one leads.
    pub(crate) async fn start(&mut self) {
        let starts = self.nodes.iter_mut().map(Node::start);
        for outcome in futures_util::future::join_all(starts).await {
            outcome.unwrap();
        }
        self.leader().await;
    }

    pub(crate) fn engine(&self, number: usize) -> &Engine {
        self.nodes[number].engine.as_ref().unwrap()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Engine)> {
        let engine = |(number, node): (usize, &'_ Node)| (number, node.engine.is_some());
        let numbers: Vec<usize> = self
            .nodes
            .iter()
            .enumerate()
            .map(engine)
            .filter(|(_, runs)| *runs)
            .map(|(number, _)| number)
            .collect();
        numbers.into_iter().map(|number| (number, self.engine(number)))
    }

    /// The member that leads now, by its own account and that of a majority of those who run.
    fn leads_now(&self) -> Option<usize> {
        let statuses: Vec<_> = self.running().map(|(number, engine)| (number, engine.status())).collect();
        let (number, leader) = statuses.iter().find(|(_, status)| status.is_leader)?;
        let follow = statuses.iter().filter(|(_, status)| status.leader == Some(leader.member_id)).count();
        (follow * 2 > statuses.len()).then_some(*number)
    }

    /// Waits until one of the members leads.
    pub(crate) async fn leader(&self) -> usize {
        let mut leader = None;
        until("a leader", || {
            leader = self.leads_now();
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// A member that does not lead.
    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.running().map(|(number, _)| number).find(|number| *number != leader).unwrap()
    }

    pub(crate) async fn stop(&mut self, number: usize) {
        self.nodes[number].engine.take().unwrap().shutdown().await.unwrap();
    }

    /// Ends a member without a word to anyone.
    pub(crate) fn kill(&mut self, number: usize) {
        let engine = self.nodes[number].engine.take().unwrap();
        self.isolate_from_all(number, &engine);
        drop(engine);
    }

    pub(crate) async fn restart(&mut self, number: usize) {
        self.nodes[number].start().await.unwrap();
    }

    fn isolate_from_all(&self, number: usize, engine: &Engine) {
        for member in engine.members() {
            engine.switch().cut(member.id, Direction::To);
        }
        for (other, peer) in self.running() {
            if other != number {
                peer.switch().cut(engine.status().member_id, Direction::To);
                peer.switch().mend();
            }
        }
    }

    /// Takes the cable out between one member and all others.
    pub(crate) fn cut_off(&self, number: usize) {
        let own = self.engine(number).status().member_id;
        for (other, engine) in self.running() {
            for direction in [Direction::To, Direction::From] {
                if other != number {
                    engine.switch().cut(own, direction);
                    self.engine(number).switch().cut(engine.status().member_id, direction);
                }
            }
        }
    }

    pub(crate) fn mend(&self) {
        for (_, engine) in self.running() {
            engine.switch().mend();
        }
    }

    /// Adds a member by way of another, and starts it.
    pub(crate) async fn grow(&mut self, by: usize, is_learner: bool) -> usize {
        let number = self.nodes.len();
        let own = self.initial(number);
        self.engine(by).add_member(own.peer_urls.clone(), is_learner).await.unwrap();
        let mut initial: Vec<InitialMember> = self
            .running()
            .map(|(running, engine)| InitialMember {
                name: format!("member-{running}"),
                peer_urls: engine.status().peer_urls,
            })
            .collect();
        initial.push(own);
        let options = self.options(number, initial, ClusterState::Existing);
        self.nodes.push(Node { options, engine: None });
        self.nodes[number].start().await.unwrap();
        number
    }

    /// Waits until all who run have come equally far, and checks that they have the same.
    pub(crate) async fn agree(&self) {
        let leader = self.leader().await;
        self.engine(leader).read_barrier().await.unwrap();
        let index = self.engine(leader).status().applied_index;
        for (number, engine) in self.running() {
            until(&format!("member {number} at {index}"), || engine.status().applied_index >= index).await;
        }
        let parts = |engine: &Engine| {
            engine.read(|store: &Store| (store.revision(), store.range(&everything()).unwrap().kvs))
        };
        let (revision, expected) = parts(self.engine(leader));
        for (number, engine) in self.running() {
            let (found_revision, found) = parts(engine);
            assert_eq!((found_revision, found.len()), (revision, expected.len()), "member {number}");
            assert!(found == expected, "member {number} has other keys");
        }
    }

    pub(crate) async fn shutdown(mut self) {
        // From the last to the first, so that leadership is handed over now and then.
        for number in (0..self.nodes.len()).rev() {
            if self.nodes[number].engine.is_some() {
                self.stop(number).await;
            }
        }
    }
}

pub(crate) fn everything() -> RangeRequest {
    RangeRequest::new(KeyRange::From(Bytes::from_static(b"\0")))
}

pub(crate) fn snapshots(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("snap")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "snap")).count()
}

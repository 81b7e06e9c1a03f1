//! The cluster's own store: served here, and read by the apiserver like by everybody else.
//!
//! ```text
//! Server (embedded) ◄── mTLS ── KvClient (admin-<own>) ── follow ─► OwnRecords: peers, readers, nodes
//!     ▲                                                                 │
//!     └──────────────────────── access rules ◄── users ─────────────────┘
//! ```
//!
//! What is configured is a record. Nobody in this process keeps a second truth: each part looks at the latest view.

mod follow;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use landbridge_kvstore_client::{ClientOptions, KeyValue, KvClient};
use landbridge_kvstore_schema::{
    ClusterName, Keyspace, Kind, Node, ObjectName, Origin, OwnRecord, Peer, Reader, RecordName,
};
use landbridge_kvstore_server::engine::EngineOptions;
use landbridge_kvstore_server::{Access, AccessRules, ListenUrl, Server, ServerOptions, TlsFiles};
use tokio::sync::watch;
use tokio::time::timeout;

pub use follow::{Records, View, chain, first};

use crate::pki::CertificateFiles;
use crate::serve::Stage;
use crate::users::access_rules;

/// How long one request to the own store may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long reading the own store for the first time may take.
const READ_WITHIN: Duration = Duration::from_mins(1);

/// Where and how the store is served.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cluster.
    pub cluster: ClusterName,
    /// Folder of the store's files.
    pub folder: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it.
    pub advertise: Vec<String>,
    /// What it shows.
    pub server: CertificateFiles,
    /// What the apiserver itself shows.
    pub admin: CertificateFiles,
}

/// The store, running.
pub struct OwnStore {
    server: Server,
    address: SocketAddr,
    access: watch::Sender<AccessRules>,
    client: KvClient,
}

impl OwnStore {
    /// Starts the store. Only `admin-<own>` and `local-<own>` are let in until [`OwnRecords::follow`] knows the others.
    ///
    /// # Errors
    /// Why it cannot start: the address is in use, or its files cannot be read or written.
    pub async fn start(options: StoreOptions) -> anyhow::Result<Self> {
        let (access, rules) = watch::channel(access_rules(&options.cluster, [], []));
        let mut engine = EngineOptions::new(options.folder);
        engine.cluster.token = format!("landbridge-{}", options.cluster);
        let files = options.server;
        let tls = TlsFiles { ca: files.ca, certificate: files.certificate, key: files.key };
        let listen = options.listen;
        let server = Server::start(ServerOptions {
            engine,
            listen: vec![ListenUrl::https(listen)],
            listen_metrics: Vec::new(),
            advertise: options.advertise,
            tls: Some(tls.into()),
            access: Access::Rules(rules),
        })
        .await
        .with_context(|| format!("cannot serve the store at {listen}"))?;
        let address = server.local_addr().context("the store listens on no port")?;
        let client = KvClient::new(ClientOptions {
            endpoints: vec![format!("https://{}", reachable(address))],
            tls: Some(client_files(options.admin)),
            request_timeout: REQUEST_TIMEOUT,
        })?;
        Ok(Self { server, address, access, client })
    }

    /// A client with all rights.
    pub fn client(&self) -> &KvClient {
        &self.client
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the store ends by itself, as it does when its disk fails, and returns why.
    pub async fn ended(&self) -> anyhow::Error {
        let reason = self.server.engine().ended().await;
        anyhow!("the store has ended: {}", reason.unwrap_or_else(|| "it was stopped".to_owned()))
    }

    /// Where its access rules are set.
    pub fn access(&self) -> watch::Sender<AccessRules> {
        self.access.clone()
    }

    /// Stops it; what was answered is on disk.
    ///
    /// # Errors
    /// Why it did not stop in order.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.server.shutdown().await.context("cannot stop the store in order")
    }
}

/// Certificate files for a client.
pub fn client_files(files: CertificateFiles) -> landbridge_kvstore_client::TlsFiles {
    let CertificateFiles { ca, certificate, key } = files;
    landbridge_kvstore_client::TlsFiles { ca, certificate, key }
}

/// An address to connect to, of one to listen on: "all addresses" is reached by loopback.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// What the own store says of peers, readers and nodes.
#[derive(Clone, Debug)]
pub struct OwnRecords {
    /// Clusters that this one reads.
    pub peers: View<ClusterName, Peer>,
    /// Clusters that may read this one.
    pub readers: View<ClusterName, Reader>,
    /// Nodes of this cluster.
    pub nodes: View<ObjectName, Node>,
}

impl OwnRecords {
    /// Follows the records in tasks of `stage`, and lets the access rules follow them.
    pub fn follow(
        client: &KvClient,
        origin: &Origin,
        access: watch::Sender<AccessRules>,
        stage: &mut Stage,
    ) -> Self {
        let (peers_out, peers) = watch::channel(None);
        let (readers_out, readers) = watch::channel(None);
        let (nodes_out, nodes) = watch::channel(None);
        let own = origin.keyspace.cluster.clone();

        let peers_task = follow::follow(client.clone(), Peer::prefix().to_string(), of_cluster, peers_out);
        stage.spawn_droppable("following the peers", async {
            peers_task.await;
            Ok(())
        });
        let readers_task =
            follow::follow(client.clone(), Reader::prefix().to_string(), of_cluster, readers_out);
        stage.spawn_droppable("following the readers", async {
            readers_task.await;
            Ok(())
        });
        let prefix = Keyspace::state(own.clone()).watch_prefix(Kind::Nodes).to_string();
        let origin = origin.clone();
        let read_node = move |record: &KeyValue| node(&origin, record);
        let nodes_task = follow::follow(client.clone(), prefix, read_node, nodes_out);
        stage.spawn_droppable("following the own nodes", async {
            nodes_task.await;
            Ok(())
        });

        let records = Self { peers, readers, nodes };
        let (mut readers, mut nodes) = (records.readers.clone(), records.nodes.clone());
        stage.spawn_droppable("setting access rules", async move {
            set_access_rules(&own, &mut readers, &mut nodes, &access).await;
            Ok(())
        });
        records
    }
}

impl OwnRecords {
    /// Waits until everything was read once.
    ///
    /// # Errors
    /// If the store does not answer in time.
    pub async fn read_once(&self) -> anyhow::Result<()> {
        let (mut peers, mut readers, mut nodes) =
            (self.peers.clone(), self.readers.clone(), self.nodes.clone());
        let all = async {
            first(&mut peers).await.is_some()
                && first(&mut readers).await.is_some()
                && first(&mut nodes).await.is_some()
        };
        match timeout(READ_WITHIN, all).await {
            Ok(true) => Ok(()),
            _ => bail!("the own store could not be read within {READ_WITHIN:?}; its log says why"),
        }
    }
}

/// Keeps the store's access rules as readers and nodes say. Until both are known, nobody else is let in.
async fn set_access_rules(
    own: &ClusterName,
    readers: &mut View<ClusterName, Reader>,
    nodes: &mut View<ObjectName, Node>,
    access: &watch::Sender<AccessRules>,
) {
    loop {
        let known = (readers.borrow_and_update().clone(), nodes.borrow_and_update().clone());
        if let (Some(readers), Some(nodes)) = known {
            let rules = access_rules(own, nodes.records.keys(), readers.records.keys());
            access.send_if_modified(|current| {
                let is_other = *current != rules;
                *current = rules;
                is_other
            });
        }
        let changed = tokio::select! {
            changed = readers.changed() => changed,
            changed = nodes.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn of_cluster<T: OwnRecord>(record: &KeyValue) -> Result<(ClusterName, T), String> {
    let name = record.key.rsplit('/').next().unwrap_or_default();
    let name = ClusterName::new(name).map_err(|error| error.to_string())?;
    let value = T::decode(&record.key, &record.value).map_err(|error| chain(&error))?;
    Ok((name, value))
}

fn node(origin: &Origin, record: &KeyValue) -> Result<(ObjectName, Node), String> {
    match origin.keyspace.parse(record.key.as_bytes()) {
        Ok(RecordName::Node(name)) => {
            let node = Node::decode(origin, &name, &record.value).map_err(|error| chain(&error))?;
            Ok((name, node))
        }
        Ok(_) => Err("the key is not that of a node".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

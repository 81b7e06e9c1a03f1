//! An agent from its start to its end.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use landbridge_agent_mesh::Local;
use landbridge_bpf_loader::maps::{Address, NodeConfig};
use landbridge_bpf_loader::{Datapath, DatapathOptions, Kernel, MapSizes};
use landbridge_kvstore_client::KvClient;
use landbridge_kvstore_schema::{Keyspace, Node, Origin, RecordName};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, Routing};
use crate::endpoint::EndpointTable;
use crate::error_chain::chain;
use crate::feeds::{self, PREFIXES};
use crate::health::{HealthTask, Targets};
use crate::netlink::Netlink;
use crate::node_api::{NodeService, NodeSocket};
use crate::node_network::{NodeNetwork, OVERLAY_INTERFACE, OVERLAY_PORT};
use crate::pod_cidr::PodCidr;
use crate::preflight;
use crate::reconciler::{EVENT_QUEUE_LEN, NodeHandle, Parts, Reconciler, View};
use crate::report::Reporter;
use crate::sockets::{Namespaces, SocketEnder};
use crate::state_dir::StateDir;

/// How long a node that was never part of the mesh waits for its record.
const NODE_RECORD_DEADLINE: Duration = Duration::from_mins(2);
/// How often it looks.
const NODE_RECORD_INTERVAL: Duration = Duration::from_millis(500);
/// How often it says so.
const NODE_RECORD_NOTICE: Duration = Duration::from_secs(5);
/// How long tasks have to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// An agent whose interfaces, programs and sockets are in place; nothing runs yet.
pub struct Agent {
    config: Config,
    client: KvClient,
    socket: NodeSocket,
    reconciler: Reconciler,
    handle: NodeHandle,
    view: watch::Receiver<View>,
    health: HealthTask,
    health_reports: watch::Receiver<crate::health::Health>,
    events: mpsc::Sender<feeds::NumberedEvent>,
    sockets: SocketEnder,
}

impl Agent {
    /// Puts everything in place. A node that was part of the mesh before needs no store for that.
    ///
    /// # Errors
    /// What is missing, or what cannot be put in place, and what to do about it.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let netlink = Netlink::connect()?;
        preflight::check(&config, &netlink).await?;
        let client = KvClient::new(config.store.clone())?;
        let state = StateDir::open(&config.state_dir)?;
        let socket = NodeSocket::bind(&config.socket)?;
        let cidr = pod_cidr(&config, &client, &state).await?;

        let network = NodeNetwork::set_up(&netlink, &config.uplink, cidr, config.routing).await?;
        let mut datapath = block_in_place(|| Datapath::open(&datapath_options(&config, cidr, network)))?;
        let Kernel { release, lacks } = datapath.kernel();
        for feature in lacks {
            let instead = feature.fallback().unwrap_or_default();
            warn!(kernel = release, lacks = %feature, instead, "the kernel lacks something that the datapath can do without");
        }
        let connected = datapath.take_sockets().context("the datapath is new")?;
        let (looks, looked_at) = watch::channel(Namespaces::new());
        let (events, feed_events) = mpsc::channel(EVENT_QUEUE_LEN);
        let (targets, probed) = watch::channel(Targets::new());
        let (health, health_reports) =
            HealthTask::new(cidr.router(), probed).context("cannot open a raw socket for probes")?;
        let (reconciler, handle, view) = Reconciler::start(Parts {
            local: Local {
                cluster: config.cluster.clone(),
                id: config.cluster_id,
                node: config.node.clone(),
            },
            datapath,
            table: EndpointTable::load(cidr, state)?,
            netlink,
            network,
            events: feed_events,
            targets,
            health: health_reports.clone(),
            looks,
        })
        .await?;
        info!(node = %config.node, pod_cidr = %cidr.prefix(), "datapath in place");
        let sockets = SocketEnder::new(connected, handle.clone(), looked_at);
        Ok(Self { config, client, socket, reconciler, handle, view, health, health_reports, events, sockets })
    }

    /// Runs every task until `shutdown` completes or one of them ends. What is in the kernel stays there.
    ///
    /// # Errors
    /// A task that ended by itself, or one that did not end.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let mut tasks: JoinSet<anyhow::Result<&'static str>> = JoinSet::new();
        for number in 0..PREFIXES.len() {
            let feed = feeds::run(self.client.clone(), number, self.events.clone(), stop.clone());
            tasks.spawn(async move {
                feed.await;
                Ok("feed")
            });
        }
        drop(self.events);
        let health = self.health.run(stop.clone());
        tasks.spawn(async move { health.await.context("probes").map(|()| "probes") });
        let report = Reporter::new(
            self.client,
            &self.config.node,
            self.handle.clone(),
            self.view.clone(),
            self.health_reports,
        );
        let report = report.run(stop.clone());
        tasks.spawn(async move {
            report.await;
            Ok("report")
        });
        let sockets = self.sockets.run(stop.clone());
        tasks.spawn(async move {
            sockets.await;
            Ok("sockets")
        });
        let service = NodeService {
            cluster: self.config.cluster,
            node: self.config.node,
            reconciler: self.handle,
            view: self.view,
        };
        let api = service.serve(self.socket, stop.clone());
        tasks.spawn(async move { api.await.context("node API").map(|()| "node API") });
        let reconciler = self.reconciler.run(stop.clone());
        tasks.spawn(async move { Ok(reconciler.await.map(|()| "reconciler")?) });

        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = tasks.join_next() => Err(match ended {
                Ok(Ok(task)) => anyhow!("task {task} ended by itself"),
                Ok(Err(error)) => error.context("a task failed"),
                Err(error) => anyhow!(error).context("a task failed"),
            }),
        };
        stop.cancel();
        let drained = timeout(DRAIN_DEADLINE, async { while tasks.join_next().await.is_some() {} });
        outcome.and(drained.await.context("tasks still ran at the drain deadline"))
    }
}

/// The node's range: the one it had before, otherwise the one in its record.
async fn pod_cidr(config: &Config, client: &KvClient, state: &StateDir) -> anyhow::Result<PodCidr> {
    if let Some(cidr) = state.pod_cidr()? {
        return Ok(cidr);
    }
    let keyspace = Keyspace::state(config.cluster.clone());
    let key = keyspace.key(&RecordName::Node(config.node.clone()));
    let origin = Origin { keyspace, cluster_id: config.cluster_id };
    let begin = Instant::now();
    let mut notice = begin;
    loop {
        let missing = match client.get(&key).await {
            Ok(Some(entry)) => {
                let node = Node::decode(&origin, &config.node, &entry.value)?;
                match node.ipv4_pod_cidrs.first() {
                    Some(prefix) => {
                        let cidr = PodCidr::new(*prefix)?;
                        let cidr = node.ipv6_pod_cidrs.first().map_or(Ok(cidr), |v6| cidr.with_ipv6(*v6))?;
                        state.keep_pod_cidr(cidr)?;
                        return Ok(cidr);
                    }
                    None => format!("record {key} has no IPv4 PodCIDR"),
                }
            }
            Ok(None) => format!("there is no record {key}: is there a Node object {}?", config.node),
            Err(error) => chain(&error),
        };
        if begin.elapsed() >= NODE_RECORD_DEADLINE {
            bail!("no PodCIDR for this node after {NODE_RECORD_DEADLINE:?}: {missing}");
        }
        if Instant::now() >= notice {
            warn!(reason = missing, "waiting for this node's PodCIDR");
            notice = Instant::now() + NODE_RECORD_NOTICE;
        }
        sleep(NODE_RECORD_INTERVAL).await;
    }
}

fn datapath_options(config: &Config, cidr: PodCidr, network: NodeNetwork) -> DatapathOptions {
    let is_direct = config.routing == Routing::Direct;
    let address = |address: Option<IpAddr>| address.map(Address::from).unwrap_or_default();
    let twin = |of| address(cidr.twin(of).map(IpAddr::V6));
    let [masquerade, masquerade6] = network.uplink_addresses.map(address);
    let flag = |is_on: bool, flag: u32| if is_on { flag } else { 0 };
    DatapathOptions {
        pins: config.bpf_dir.clone(),
        cgroup: config.cgroup.clone(),
        overlay_interface: OVERLAY_INTERFACE.to_owned(),
        uplink_interface: (is_direct || config.masquerade).then(|| config.uplink.clone()),
        config: NodeConfig {
            router: cidr.router().into(),
            health: cidr.health().into(),
            router6: twin(cidr.router()),
            health6: twin(cidr.health()),
            masquerade,
            masquerade6,
            overlay_mtu: network.overlay_mtu,
            overlay_port: OVERLAY_PORT.into(),
            cluster: config.cluster_id.get().into(),
            cluster_shift: config.cluster_id.max_clusters().local_bits(),
            flags: flag(is_direct, NodeConfig::DIRECT) | flag(config.masquerade, NodeConfig::MASQUERADE),
            // The loader knows interfaces by their names.
            ..NodeConfig::default()
        },
        sizes: MapSizes::default(),
        attachment: config.attachment,
    }
}

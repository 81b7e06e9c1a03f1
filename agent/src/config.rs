//! Every setting of the agent, checked once.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use landbridge_bpf_loader::Attachment;
use landbridge_kvstore_client::{ClientOptions, TlsFiles};
use landbridge_kvstore_schema::{ClusterId, ClusterName, InvalidClusterId, MaxClusters, ObjectName};

use crate::telemetry::LogArgs;

/// How long one request to the store may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The agent of a node: reads the cluster's store and keeps the node's datapath as the store says.
#[derive(Debug, Parser)]
#[command(name = "landbridge-agent", version)]
pub struct Args {
    /// Name of the cluster that the node is of.
    #[arg(long, env = "LANDBRIDGE_AGENT_CLUSTER")]
    cluster: ClusterName,
    /// Number of the cluster in its mesh.
    #[arg(long, env = "LANDBRIDGE_AGENT_CLUSTER_ID")]
    cluster_id: u32,
    /// How many clusters the mesh can have, 255 or 511; the same in all of them.
    #[arg(long, env = "LANDBRIDGE_AGENT_MAX_CLUSTERS", default_value = "255", value_parser = max_clusters)]
    max_clusters: MaxClusters,
    /// Name of the node, as in its Node object.
    #[arg(long, env = "LANDBRIDGE_AGENT_NODE")]
    node: ObjectName,
    /// Where the cluster's store is; may be repeated, or be a list with commas.
    #[arg(
        long,
        alias = "kvstore-endpoints",
        env = "LANDBRIDGE_AGENT_KVSTORE_ENDPOINTS",
        value_delimiter = ',',
        required = true
    )]
    kvstore_endpoint: Vec<String>,
    /// Certificates (PEM) that the store's has to be signed by.
    #[arg(long, env = "LANDBRIDGE_AGENT_TLS_CA", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// The agent's certificate (PEM).
    #[arg(long, env = "LANDBRIDGE_AGENT_TLS_CERT", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, env = "LANDBRIDGE_AGENT_TLS_KEY", requires_all = ["tls_ca", "tls_cert"])]
    tls_key: Option<PathBuf>,
    /// Unix socket of the node API.
    #[arg(long, env = "LANDBRIDGE_AGENT_SOCKET", default_value = "/run/landbridge/agent.sock")]
    socket: PathBuf,
    /// Folder for what the agent keeps over restarts.
    #[arg(long, env = "LANDBRIDGE_AGENT_STATE_DIR", default_value = "/var/lib/landbridge/agent")]
    state_dir: PathBuf,
    /// Folder on a bpf filesystem for programs and maps.
    #[arg(long, env = "LANDBRIDGE_AGENT_BPF_DIR", default_value = "/sys/fs/bpf/landbridge")]
    bpf_dir: PathBuf,
    /// Root of the node's cgroup v2 tree.
    #[arg(long, env = "LANDBRIDGE_AGENT_CGROUP", default_value = "/sys/fs/cgroup")]
    cgroup: PathBuf,
    /// Interface that leads to other nodes.
    #[arg(long, env = "LANDBRIDGE_AGENT_UPLINK")]
    uplink: String,
    /// How programs are held at interfaces: `auto` for the newest way that the kernel has, `clsact` for the older one.
    #[arg(long, env = "LANDBRIDGE_AGENT_TC", default_value = "auto")]
    tc: TcMode,
    /// How pods of other nodes are reached.
    #[arg(long, env = "LANDBRIDGE_AGENT_ROUTING", value_enum, default_value_t = Routing::Overlay)]
    routing: Routing,
    /// Whether pods speak to the world under the address of their node.
    #[arg(
        long,
        env = "LANDBRIDGE_AGENT_MASQUERADE",
        action = clap::ArgAction::Set,
        default_value_t = true
    )]
    masquerade: bool,
    /// What to log, and how.
    #[command(flatten)]
    pub log: LogArgs,
}

/// How programs are held at interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TcMode {
    /// As the kernel can.
    Auto,
    /// By tcx links, of Linux 6.6 and newer.
    Tcx,
    /// As filters of a clsact qdisc.
    Clsact,
}

/// How pods of other nodes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Routing {
    /// Through tunnels, whatever the network between the nodes knows.
    Overlay,
    /// By the network between the nodes, which has to know the way to every node's pods.
    Direct,
}

/// The settings of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster that the node is of.
    pub cluster: ClusterName,
    /// Its number.
    pub cluster_id: ClusterId,
    /// The node.
    pub node: ObjectName,
    /// How the store is reached.
    pub store: ClientOptions,
    /// Unix socket of the node API.
    pub socket: PathBuf,
    /// Folder for what is kept over restarts.
    pub state_dir: PathBuf,
    /// Folder on a bpf filesystem.
    pub bpf_dir: PathBuf,
    /// Root of the node's cgroup v2 tree.
    pub cgroup: PathBuf,
    /// Interface that leads to other nodes.
    pub uplink: String,
    /// How programs are held at interfaces; nothing for the newest way that the kernel has.
    pub attachment: Option<Attachment>,
    /// How pods of other nodes are reached.
    pub routing: Routing,
    /// Whether pods speak to the world under the address of their node.
    pub masquerade: bool,
}

impl TryFrom<Args> for Config {
    type Error = InvalidClusterId;

    fn try_from(args: Args) -> Result<Self, Self::Error> {
        let files = (args.tls_ca, args.tls_cert, args.tls_key);
        let tls = if let (Some(ca), Some(certificate), Some(key)) = files {
            Some(TlsFiles { ca, certificate, key })
        } else {
            None
        };
        Ok(Self {
            cluster: args.cluster,
            cluster_id: ClusterId::new(args.cluster_id, args.max_clusters)?,
            node: args.node,
            store: ClientOptions { endpoints: args.kvstore_endpoint, tls, request_timeout: REQUEST_TIMEOUT },
            socket: args.socket,
            state_dir: args.state_dir,
            bpf_dir: args.bpf_dir,
            cgroup: args.cgroup,
            uplink: args.uplink,
            attachment: match args.tc {
                TcMode::Auto => None,
                TcMode::Tcx => Some(Attachment::Tcx),
                TcMode::Clsact => Some(Attachment::Clsact),
            },
            routing: args.routing,
            masquerade: args.masquerade,
        })
    }
}

fn max_clusters(text: &str) -> Result<MaxClusters, String> {
    let sizes = [MaxClusters::Of255, MaxClusters::Of511];
    sizes
        .into_iter()
        .find(|size| size.get().to_string() == text)
        .ok_or_else(|| format!("{text} is neither 255 nor 511"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const REQUIRED: [&str; 11] = [
        "landbridge-agent",
        "--cluster",
        "a",
        "--cluster-id",
        "1",
        "--node",
        "a1",
        "--kvstore-endpoint",
        "http://172.30.1.1:2379",
        "--uplink",
        "eth0",
    ];

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn settings_are_checked() {
        let config = Config::try_from(Args::try_parse_from(REQUIRED).unwrap()).unwrap();
        assert_eq!((config.cluster_id.get(), config.store.tls), (1, None));
        assert_eq!((config.routing, config.masquerade), (Routing::Overlay, true));
        let flags = REQUIRED.into_iter().chain(["--routing", "direct", "--masquerade", "false"]);
        let config = Config::try_from(Args::try_parse_from(flags).unwrap()).unwrap();
        assert_eq!((config.routing, config.masquerade), (Routing::Direct, false));
        for (more, expected) in [
            (["--tls-ca", "x"], "--tls-cert"),
            (["--max-clusters", "300"], "neither 255 nor 511"),
            (["--node", "A_1"], "not an object name"),
            (["--routing", "magic"], "[possible values: overlay, direct]"),
        ] {
            let flags = REQUIRED.iter().filter(|flag| **flag != "--node" && **flag != "a1");
            let node = if more[0] == "--node" { vec![] } else { vec!["--node", "a1"] };
            let error = Args::try_parse_from(flags.copied().chain(node).chain(more)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_cluster_id_is_within_its_mesh() {
        let flags = REQUIRED.map(|flag| if flag == "1" { "300" } else { flag });
        let error = Config::try_from(Args::try_parse_from(flags).unwrap()).unwrap_err();
        assert!(error.to_string().contains("300"), "{error}");
    }
}

//! `clusterctl status`: how clusters, nodes, peers and services are doing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use landbridge_apiserver_api::v1::{
    GetStatusRequest, GetStatusResponse, NodeStatus, PeerStatus, ServiceStatus,
};
use serde::Serialize;

use crate::admin::Cluster;
use crate::contexts::{ClusterContext, Contexts};
use crate::output::{Format, Mark, escaped, print_json, print_table, say};
use crate::{PARTIAL, PROBLEMS, runtime};

/// Show how clusters, their nodes, peers and services are doing
///
/// Every number is measured where traffic flows: paths by probes between nodes, records by what is in the nodes' maps.
/// Ends with 3 if something is wrong, with 5 if some of the clusters do not answer.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Clusters by their names in the configuration, or addresses of their admin API [default: all of the
    /// configuration]
    clusters: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    contexts: Contexts,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    api_version: &'static str,
    kind: &'static str,
    clusters: Vec<GetStatusResponse>,
    /// Clusters that do not answer, with the reason.
    unreachable: Vec<Unreachable>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unreachable {
    name: String,
    reason: String,
}

/// The state of all clusters of the configuration.
///
/// # Errors
/// The first cluster that does not answer.
pub(crate) fn of_all(contexts: &Contexts) -> anyhow::Result<Vec<GetStatusResponse>> {
    let contexts = contexts.choose(&[])?;
    runtime()?.block_on(async {
        let mut clusters = Vec::new();
        for context in contexts {
            clusters.push(status_of(context).await?);
        }
        Ok(clusters)
    })
}

impl StatusArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let contexts = self.contexts.choose(&self.clusters)?;
        let mut report = Report {
            api_version: "landbridge.io/v1alpha1",
            kind: "MeshStatus",
            clusters: Vec::new(),
            unreachable: Vec::new(),
        };
        runtime()?.block_on(async {
            for context in contexts {
                let name = context.name.clone();
                match status_of(context).await {
                    Ok(status) => report.clusters.push(status),
                    Err(error) => report.unreachable.push(Unreachable { name, reason: format!("{error:#}") }),
                }
            }
        });
        match self.output {
            Format::Json => print_json(&report)?,
            Format::Table => {
                if !report.clusters.is_empty() {
                    print(&report.clusters)?;
                }
                report.print_problems()?;
            }
        }
        Ok(report.exit_code())
    }
}

async fn status_of(context: ClusterContext) -> anyhow::Result<GetStatusResponse> {
    let mut cluster = Cluster::open(context).await?;
    let status = cluster.api.get_status(GetStatusRequest {}).await;
    Ok(status.map_err(|status| cluster.refused(&status))?.into_inner())
}

impl Report {
    fn exit_code(&self) -> ExitCode {
        match (self.clusters.is_empty(), self.unreachable.is_empty()) {
            (true, _) => ExitCode::FAILURE,
            (false, false) => ExitCode::from(PARTIAL),
            (false, true) if self.clusters.iter().any(|cluster| !cluster.problems.is_empty()) => {
                ExitCode::from(PROBLEMS)
            }
            (false, true) => ExitCode::SUCCESS,
        }
    }

    fn print_problems(&self) -> anyhow::Result<()> {
        say(format_args!(""))?;
        for cluster in &self.clusters {
            for problem in &cluster.problems {
                say(format_args!("{} {}: {}", Mark::Bad, cluster.cluster, escaped(problem)))?;
            }
        }
        for Unreachable { reason, .. } in &self.unreachable {
            say(format_args!("{} {reason}", Mark::Bad))?;
        }
        if self.unreachable.is_empty() && self.clusters.iter().all(|cluster| cluster.problems.is_empty()) {
            say(format_args!("{} nothing is wrong", Mark::Good))?;
        }
        Ok(())
    }
}

/// Prints the tables of a status.
pub(crate) fn print(clusters: &[GetStatusResponse]) -> anyhow::Result<()> {
    print_table(
        ["CLUSTER", "ID", "REVISION", "NODES", "PEERS", "VERSION"],
        clusters.iter().map(cluster_row),
    )?;
    let rows =
        |cluster: &GetStatusResponse| cluster.nodes.iter().map(|node| node_row(cluster, node)).collect();
    table(
        clusters,
        ["CLUSTER", "NODE", "ADDRESS", "PODS IN", "AGENT", "PODS", "PATHS", "ROUND TRIP", "DROPS"],
        rows,
    )?;
    let rows =
        |cluster: &GetStatusResponse| cluster.peers.iter().map(|peer| peer_row(cluster, peer)).collect();
    table(
        clusters,
        [
            "CLUSTER",
            "PEER",
            "STATE",
            "BEHIND",
            "HEARD",
            "ROUND TRIP",
            "NODES",
            "ADDRESSES",
            "SERVICES",
            "REFUSED",
        ],
        rows,
    )?;
    let rows = |cluster: &GetStatusResponse| {
        cluster.services.iter().map(|service| service_row(cluster, service)).collect()
    };
    table(clusters, ["CLUSTER", "SERVICE", "ADDRESS", "GLOBAL", "BACKENDS"], rows)
}

/// Prints a table of rows of all clusters, nothing if there are none.
fn table<const N: usize>(
    clusters: &[GetStatusResponse],
    header: [&str; N],
    rows: impl Fn(&GetStatusResponse) -> Vec<[String; N]>,
) -> anyhow::Result<()> {
    let rows: Vec<_> = clusters.iter().flat_map(rows).collect();
    if rows.is_empty() {
        return Ok(());
    }
    say(format_args!(""))?;
    print_table(header, rows)
}

fn cluster_row(cluster: &GetStatusResponse) -> [String; 6] {
    let reporting = cluster.nodes.iter().filter(|node| node.reporting).count();
    let synced = cluster.peers.iter().filter(|peer| peer.state == "synced").count();
    [
        escaped(&cluster.cluster),
        cluster.id.to_string(),
        cluster.revision.to_string(),
        format!("{reporting}/{}", cluster.nodes.len()),
        format!("{synced}/{}", cluster.peers.len()),
        escaped(&cluster.version),
    ]
}

fn node_row(cluster: &GetStatusResponse, node: &NodeStatus) -> [String; 9] {
    let reachable = node.paths.iter().filter(|path| path.reachable).count();
    let slowest = node.paths.iter().map(|path| path.round_trip_micros).max().unwrap_or(0);
    let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
    for drop in &node.drops {
        *drops.entry(&drop.name).or_default() += drop.packets;
    }
    let drops: Vec<String> =
        drops.into_iter().map(|(reason, packets)| format!("{packets} {}", escaped(reason))).collect();
    [
        escaped(&cluster.cluster),
        escaped(&node.name),
        escaped(&node.address),
        escaped(&node.pod_range),
        if node.reporting { "reports".to_owned() } else { "silent".to_owned() },
        node.endpoints.to_string(),
        format!("{reachable}/{}", node.paths.len()),
        millis(slowest),
        or_none(&drops),
    ]
}

fn peer_row(cluster: &GetStatusResponse, peer: &PeerStatus) -> [String; 10] {
    let heard = if peer.revision == 0 { "never".to_owned() } else { ago(peer.heard_millis_ago) };
    [
        escaped(&cluster.cluster),
        escaped(&peer.name),
        escaped(&peer.state),
        format!("{} revisions", (peer.revision - peer.mirrored_revision).max(0)),
        heard,
        millis(peer.round_trip_micros),
        peer.nodes.to_string(),
        peer.addresses.to_string(),
        peer.services.to_string(),
        peer.refused.to_string(),
    ]
}

fn service_row(cluster: &GetStatusResponse, service: &ServiceStatus) -> [String; 5] {
    let backends: BTreeMap<&String, &u32> =
        service.backends.iter().filter(|(_, count)| **count > 0).collect();
    let backends: Vec<String> =
        backends.into_iter().map(|(cluster, count)| format!("{count} in {}", escaped(cluster))).collect();
    [
        escaped(&cluster.cluster),
        escaped(&format!("{}/{}", service.namespace, service.name)),
        escaped(&service.cluster_address),
        if service.global { "yes".to_owned() } else { "no".to_owned() },
        or_none(&backends),
    ]
}

fn or_none(parts: &[String]) -> String {
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn millis(micros: u32) -> String {
    if micros == 0 { "-".to_owned() } else { format!("{:.2} ms", f64::from(micros) / 1_000.0) }
}

fn ago(millis: u64) -> String {
    format!("{}.{} s ago", millis / 1_000, millis % 1_000 / 100)
}

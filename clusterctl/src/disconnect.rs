//! `clusterctl disconnect`: two clusters part.

use std::process::ExitCode;

use clap::Args;
use landbridge_apiserver_api::v1::{DescribeClusterRequest, RemovePeerRequest};

use crate::admin::Cluster;
use crate::contexts::Contexts;
use crate::output::{Mark, escaped, say};
use crate::{PARTIAL, runtime};

/// Disconnect two clusters
///
/// Each forgets the other and everything that it said. A cluster that is down does not keep the other from forgetting
/// it; do its side when it is back.
#[derive(Args, Debug)]
pub(crate) struct Disconnect {
    /// One cluster: its name in the configuration, or the address of its admin API
    near: String,
    /// The other one
    far: String,
    #[command(flatten)]
    contexts: Contexts,
}

impl Disconnect {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (near, far) = (self.contexts.find(&self.near)?, self.contexts.find(&self.far)?);
        runtime()?.block_on(async {
            let (near, far) =
                tokio::join!(named(Cluster::open(near), &self.near), named(Cluster::open(far), &self.far));
            let (near_is_known, far_is_known) = (near.0.is_ok(), far.0.is_ok());
            let near_done = forget(near.0, &far.1, far_is_known).await?;
            let far_done = forget(far.0, &near.1, near_is_known).await?;
            match (near_done, far_done) {
                (true, true) => Ok(ExitCode::SUCCESS),
                (false, false) => Ok(ExitCode::FAILURE),
                _ => Ok(ExitCode::from(PARTIAL)),
            }
        })
    }
}

/// The cluster and what it calls itself; one that is down is called as on the command line.
async fn named(
    opening: impl Future<Output = anyhow::Result<Cluster>>,
    fallback: &str,
) -> (anyhow::Result<Cluster>, String) {
    let mut cluster = match opening.await {
        Ok(cluster) => cluster,
        Err(error) => return (Err(error), fallback.to_owned()),
    };
    let about = cluster.api.describe_cluster(DescribeClusterRequest {}).await;
    match about {
        Ok(about) => (Ok(cluster), about.into_inner().name),
        Err(status) => (Err(cluster.refused(&status)), fallback.to_owned()),
    }
}

/// Returns whether the cluster has forgotten `peer`, the other one's name if that `is_known`.
async fn forget(cluster: anyhow::Result<Cluster>, peer: &str, is_known: bool) -> anyhow::Result<bool> {
    let mut cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("{} {error:#}", Mark::Bad);
            return Ok(false);
        }
    };
    match cluster.api.remove_peer(RemovePeerRequest { peer: peer.to_owned() }).await {
        Ok(answer) => {
            let removed = answer.into_inner().removed;
            if !removed && !is_known {
                let (mark, peer) = (Mark::Bad, escaped(peer));
                eprintln!(
                    "{mark} {cluster} has no peer called {peer}, and {peer} itself cannot be asked for its name: see \
                     `clusterctl status {cluster}`, and name it in the configuration as it is called there"
                );
                return Ok(false);
            }
            let before = if removed { "has forgotten" } else { "did not know" };
            say(format_args!("{} {cluster} {before} {}", Mark::Good, escaped(peer)))?;
            Ok(true)
        }
        Err(status) => {
            eprintln!("{} {:#}", Mark::Bad, cluster.refused(&status));
            Ok(false)
        }
    }
}

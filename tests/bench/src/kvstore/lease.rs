//! Very many keys on one lease, put by an ordinary user.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions, Permission, PutOptions};
use tokio::task::JoinSet;

use super::server::{Cluster, Contender};
use super::{Case, Figures, Metric, Scale, metric};
use crate::report::Goal;

const KEYS: usize = 50_000;
const CLIENTS: usize = 100;
/// A peer that takes longer is cut, and has the figure that it reached.
const CUT: Duration = Duration::from_mins(1);
const PREFIX: &str = "leased/";

const LEASED: &[Metric] = &[
    metric("rate without lease", "1/s", Goal::None),
    metric("rate with 50,000 keys on one lease", "1/s", Goal::None),
    metric("with lease, of without", "x", Goal::None),
    metric("without lease, of with", "x", Goal::AtMost(1.0 / 0.9)),
    metric("longest put while the lease is revoked", "ms", Goal::AtMost(20.0)),
];

pub(super) const CASES: &[Case] =
    &[Case { name: "lease-50000", metrics: LEASED, run: |at, scale| Box::pin(leased(at, scale)) }];

async fn leased(at: &Contender, scale: Scale) -> Result<Figures> {
    let cluster = at.start(1).await?;
    let root = with_users(&cluster).await?;
    let ada = ConnectOptions::new().with_user("ada", "secret");
    let clients = cluster.connect_with(CLIENTS / 10, Some(ada)).await?;
    let keys = KEYS / scale.divisor;
    let without = puts(&clients, keys, 0).await?;
    let mut root = root.connect(&cluster).await?;
    let lease = root.lease_grant(3600, None).await?.id();
    let with = puts(&clients, keys, lease).await?;

    // Another client writes all the time.
    let mut other = clients.first().context("there are clients")?.clone();
    let writer = tokio::spawn(async move {
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        while start.elapsed() < Duration::from_secs(4) {
            let sent = Instant::now();
            other.put(format!("{PREFIX}other"), "value", None).await?;
            longest = longest.max(sent.elapsed());
        }
        Ok::<_, anyhow::Error>(longest)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    root.lease_revoke(lease).await?;
    let longest = writer.await.context("the writer has failed")??;
    let figures = [without, with, with / without, without / with, longest.as_secs_f64() * 1e3];
    Ok(LEASED.iter().map(|metric| metric.name).zip(figures).collect())
}

/// Who may do everything.
struct Root;

impl Root {
    async fn connect(&self, cluster: &Cluster) -> Result<Client> {
        let options = ConnectOptions::new().with_user("root", "secret");
        Ok(cluster.connect_with(1, Some(options)).await?.remove(0))
    }
}

/// Makes `root`, and `ada` who may read and write below the prefix.
async fn with_users(cluster: &Cluster) -> Result<Root> {
    let mut client = cluster.connect(1).await?.remove(0);
    client.user_add("root", "secret", None).await.context("users cannot be made")?;
    client.role_add("root").await?;
    client.user_grant_role("root", "root").await?;
    client.role_add("writer").await?;
    client.role_grant_permission("writer", Permission::read_write(PREFIX).with_prefix()).await?;
    client.user_add("ada", "secret", None).await?;
    client.user_grant_role("ada", "writer").await?;
    client.auth_enable().await?;
    Ok(Root)
}

/// Puts so many keys, by many clients at once. Returns how many per second, up to the cut.
async fn puts(clients: &[Client], keys: usize, lease: i64) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for first in 0..CLIENTS {
        let mut client = clients[first % clients.len()].clone();
        tasks.spawn(async move {
            let value = [b'v'; 256];
            let mut done = 0_u32;
            for number in (first..keys).step_by(CLIENTS) {
                if start.elapsed() > CUT {
                    break;
                }
                let options = PutOptions::new().with_lease(lease);
                client.put(format!("{PREFIX}{lease}/{number:08}"), &value[..], Some(options)).await?;
                done += 1;
            }
            Ok::<_, anyhow::Error>(done)
        });
    }
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        done += ended.context("a client has failed")??;
    }
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}

//! Many keys: lists, memory and start.

use std::time::Instant;

use anyhow::{Result, ensure};
use etcd_client::GetOptions;

use super::load::{PREFIX, Request, closed_loop, fill};
use super::server::{Cluster, Contender};
use super::{Case, Figures, Metric, Scale, metric};
use crate::report::Goal;

const KEYS: usize = 500_000;
const PAGE: i64 = 500;
const RANGE: usize = 10_000;

const RANGES: &[Metric] = &[
    metric("rate", "1/s", Goal::None),
    metric("p50", "ms", Goal::RatioAtMost(0.5)),
    metric("p99", "ms", Goal::None),
    metric("CPU", "us/op", Goal::None),
];
const MANY_KEYS: &[Metric] = &[
    metric("list of 500,000 in pages of 500", "s", Goal::AtMost(3.0)),
    metric("memory, filled", "MiB", Goal::AtMost(400.0)),
    metric("start", "s", Goal::AtMost(1.5)),
    metric("memory, started again", "MiB", Goal::AtMost(400.0)),
];

pub(super) const CASES: &[Case] = &[
    Case { name: "range-10000", metrics: RANGES, run: |at, scale| Box::pin(range(at, scale)) },
    Case { name: "keys-500000", metrics: MANY_KEYS, run: |at, scale| Box::pin(many_keys(at, scale)) },
];

async fn range(at: &Contender, scale: Scale) -> Result<Figures> {
    let cluster = at.start(1).await?;
    let keys = RANGE / scale.divisor;
    fill(&cluster, 2 * keys, 256).await?;
    let request = Request::Range { keys: i64::try_from(keys)? };
    Ok(closed_loop(&cluster, 1, scale, request).await?.figures())
}

async fn many_keys(at: &Contender, scale: Scale) -> Result<Figures> {
    let mut cluster = at.start(1).await?;
    let keys = KEYS / scale.divisor;
    fill(&cluster, keys, 512).await?;
    let filled = cluster.memory_mib()?;
    let listed = list(&cluster, keys).await?;
    let start = cluster.restart().await?.as_secs_f64();
    let again = cluster.memory_mib()?;
    let figures = [listed, filled, start, again];
    Ok(MANY_KEYS.iter().map(|metric| metric.name).zip(figures).collect())
}

/// Lists all keys in pages, as an apiserver does. Returns the seconds it takes.
async fn list(cluster: &Cluster, keys: usize) -> Result<f64> {
    let mut client = cluster.connect(1).await?.remove(0);
    let mut end = PREFIX.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let (mut from, mut found, mut revision) = (PREFIX.as_bytes().to_vec(), 0, 0);
    let start = Instant::now();
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
        let page = client.get(from, Some(options)).await?;
        found += page.kvs().len();
        revision = page.header().map_or(revision, etcd_client::ResponseHeader::revision).max(revision);
        let Some(last) = page.kvs().last().filter(|_| page.more()) else { break };
        from = last.key().to_vec();
        from.push(0);
    }
    let seconds = start.elapsed().as_secs_f64();
    ensure!(found == keys, "{found} keys came, not {keys}");
    Ok(seconds)
}

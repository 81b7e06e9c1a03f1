//! Watches: many, each on a connection of its own, some of which stop reading.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::load::{figure, latencies, nanos};
use super::server::{Cluster, Contender};
use super::{Case, Figures, Metric, Scale, metric};
use crate::report::Goal;

const WATCHERS: usize = 1000;
const STALLED: usize = 10;
const KEY: &str = "watched/key";
/// How long an event may take before something is wrong.
const DEADLINE: Duration = Duration::from_secs(30);

const WATCHED: &[Metric] = &[
    metric("p50 of a delivery", "ms", Goal::None),
    metric("p99 of a delivery", "ms", Goal::RatioAtMost(0.5)),
    metric("CPU of a delivery", "us", Goal::RatioAtMost(0.5)),
    metric("memory", "MiB", Goal::None),
];
const STALLS: &[Metric] = &[
    metric("memory before", "MiB", Goal::None),
    metric("memory after 500 MB were not read by 10", "MiB", Goal::None),
    metric("growth beyond history", "MiB", Goal::AtMost(64.0)),
];

pub(super) const CASES: &[Case] = &[
    Case { name: "watch-1000", metrics: WATCHED, run: |at, scale| Box::pin(watched(at, scale)) },
    Case { name: "watch-stalled", metrics: STALLS, run: |at, scale| Box::pin(stalled(at, scale)) },
];

/// Watches on connections of their own.
async fn watchers(cluster: &Cluster, count: usize) -> Result<Vec<(Client, WatchStream)>> {
    let mut watchers = Vec::with_capacity(count);
    for mut client in cluster.connect(count).await? {
        let stream = client.watch("watched/", Some(WatchOptions::new().with_prefix())).await?;
        watchers.push((client, stream));
    }
    Ok(watchers)
}

async fn watched(at: &Contender, scale: Scale) -> Result<Figures> {
    let cluster = at.start(1).await?;
    let count = WATCHERS / scale.divisor.min(10);
    let epoch = Instant::now();
    let (sender, mut arrivals) = mpsc::channel::<Result<u64>>(count);
    let mut tasks = JoinSet::new();
    for (client, mut stream) in watchers(&cluster, count).await? {
        let sender = sender.clone();
        tasks.spawn(async move {
            let _client = client;
            loop {
                let message = stream.message().await;
                let arrived = nanos(epoch.elapsed());
                match message {
                    Ok(Some(response)) if response.events().is_empty() => {}
                    Ok(Some(_)) => {
                        if sender.send(Ok(arrived)).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => return drop(sender.send(Err(error.into())).await),
                }
            }
        });
    }
    drop(sender);
    let mut writer = cluster.connect(1).await?.remove(0);
    let value = vec![b'v'; 256];
    let mut latencies = latencies();
    let mut round = async |latencies: &mut hdrhistogram::Histogram<u64>| {
        let sent = nanos(epoch.elapsed());
        writer.put(KEY, &value[..], None).await?;
        for _ in 0..count {
            let arrived = timeout(DEADLINE, arrivals.recv()).await.context("an event did not come")?;
            latencies.saturating_record(arrived.context("all watches have ended")??.saturating_sub(sent));
        }
        Ok::<_, anyhow::Error>(())
    };
    for _ in 0..5 {
        round(&mut self::latencies()).await?;
    }
    let (cpu, start) = (cluster.cpu_seconds()?, Instant::now());
    while start.elapsed() < scale.time {
        round(&mut latencies).await?;
    }
    let cpu = cluster.cpu_seconds()? - cpu;
    let memory = cluster.memory_mib()?;
    tasks.shutdown().await;
    let ms = |quantile| figure(latencies.value_at_quantile(quantile)) / 1e6;
    let figures = [ms(0.5), ms(0.99), cpu * 1e6 / figure(latencies.len()), memory];
    Ok(WATCHED.iter().map(|metric| metric.name).zip(figures).collect())
}

/// What a server keeps for those that do not read, beyond what it keeps as history.
async fn stalled(at: &Contender, scale: Scale) -> Result<Figures> {
    const VALUE_BYTES: usize = 100_000;
    let puts = 5000 / scale.divisor;
    let mut grown = Vec::new();
    let mut before = 0.0;
    for count in [0, STALLED] {
        let cluster = at.start(1).await?;
        let watchers = watchers(&cluster, count).await?;
        before = cluster.memory_mib()?;
        let mut writer = cluster.connect(1).await?.remove(0);
        let value = vec![b'v'; VALUE_BYTES];
        for _ in 0..puts {
            writer.put(KEY, &value[..], None).await?;
        }
        sleep(Duration::from_secs(1)).await;
        grown.push(cluster.memory_mib()?);
        ensure!(watchers.len() == count, "watchers have gone");
    }
    let figures = [before, grown[1], grown[1] - grown[0]];
    Ok(STALLS.iter().map(|metric| metric.name).zip(figures).collect())
}

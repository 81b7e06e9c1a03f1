//! A closed loop of many clients: each sends the next request when it has the answer to the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, GetOptions, Txn, TxnOp};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::server::Cluster;
use super::{Figures, Scale};

/// How many clients share a connection, at most.
const CLIENTS_PER_CONNECTION: usize = 10;

/// What a load found.
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) latencies: Histogram<u64>,
}

impl Sample {
    pub(super) fn rate(&self) -> f64 {
        figure(self.requests) / self.seconds
    }

    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        figure(self.latencies.value_at_quantile(quantile)) / 1e6
    }

    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / figure(self.requests.max(1))
    }

    pub(super) fn figures(&self) -> Figures {
        vec![
            ("rate", self.rate()),
            ("p50", self.quantile_ms(0.5)),
            ("p99", self.quantile_ms(0.99)),
            ("CPU", self.cpu_us()),
        ]
    }
}

/// A number as a figure of the table.
#[expect(clippy::cast_precision_loss, reason = "15 digits are more than any table shows")]
pub(super) fn figure(number: u64) -> f64 {
    number as f64
}

/// The longest latency that is told apart from longer ones: ten minutes.
const LONGEST: Duration = Duration::from_mins(10);

/// A histogram of nanoseconds.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, nanos(LONGEST), 3)
        .expect("the bounds are in their order, and 3 digits can be had")
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What each client does, over and over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// Puts one of so many keys, with a value of so many bytes.
    Put { keys: usize, value_bytes: usize },
    /// Reads one of so many keys, linearizably.
    Get { keys: usize },
    /// Reads the first so many keys at once.
    Range { keys: i64 },
}

impl Request {
    async fn send(self, client: &mut Client, number: usize, value: &[u8]) -> Result<()> {
        match self {
            // Far from the one before, and each of them once before one comes again.
            Self::Put { keys, .. } => {
                drop(client.put(key(number.wrapping_mul(7919) % keys), value, None).await?);
            }
            Self::Get { keys } => {
                drop(client.get(key(number.wrapping_mul(7919) % keys), None).await?);
            }
            Self::Range { keys } => {
                let options = GetOptions::new().with_prefix().with_limit(keys);
                let found = client.get(PREFIX, Some(options)).await?;
                let wanted = usize::try_from(keys)?;
                ensure!(found.kvs().len() == wanted, "{} keys came, not {wanted}", found.kvs().len());
            }
        }
        Ok(())
    }
}

/// Before all keys.
pub(super) const PREFIX: &str = "/registry/services/";

/// The key of this number, 35 bytes.
pub(super) fn key(number: usize) -> String {
    format!("{PREFIX}{number:016}")
}

/// Runs so many clients for the time of the scale, and counts what they do after a fifth of it.
pub(super) async fn closed_loop(
    cluster: &Cluster,
    clients: usize,
    scale: Scale,
    request: Request,
) -> Result<Sample> {
    let connections = cluster.connect(clients.div_ceil(CLIENTS_PER_CONNECTION)).await?;
    closed_loop_on(cluster, &connections, clients, scale, request).await
}

/// As above, over these connections.
pub(super) async fn closed_loop_on(
    cluster: &Cluster,
    connections: &[Client],
    clients: usize,
    scale: Scale,
    request: Request,
) -> Result<Sample> {
    let (counts, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let mut client = connections[number % connections.len()].clone();
        let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
        let value = vec![b'v'; if let Request::Put { value_bytes, .. } = request { value_bytes } else { 0 }];
        tasks.spawn(async move {
            let mut latencies = latencies();
            let mut next = number;
            while !stop.load(Ordering::Relaxed) {
                let counted = counts.load(Ordering::Relaxed);
                let start = Instant::now();
                request.send(&mut client, next, &value).await?;
                next += clients;
                if counted {
                    latencies.saturating_record(nanos(start.elapsed()));
                }
            }
            Ok::<_, anyhow::Error>(latencies)
        });
    }
    sleep(scale.time / 5).await;
    let (cpu, start) = (cluster.cpu_seconds()?, Instant::now());
    counts.store(true, Ordering::Relaxed);
    sleep(scale.time).await;
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), cluster.cpu_seconds()? - cpu);
    stop.store(true, Ordering::Relaxed);
    let mut all = latencies();
    while let Some(ended) = tasks.join_next().await {
        all.add(ended.context("a client has failed")??)?;
    }
    Ok(Sample { requests: all.len(), seconds, cpu_seconds, latencies: all })
}

/// Puts so many keys, with values of so many bytes, many at a time.
pub(super) async fn fill(cluster: &Cluster, keys: usize, value_bytes: usize) -> Result<()> {
    const CLIENTS: usize = 64;
    let connections = cluster.connect(CLIENTS / CLIENTS_PER_CONNECTION + 1).await?;
    let mut tasks = JoinSet::new();
    for first in 0..CLIENTS {
        let mut client = connections[first % connections.len()].clone();
        tasks.spawn(async move {
            let value = vec![b'v'; value_bytes];
            // In transactions of several puts, so that there is time for other things.
            const BATCH: usize = 50;
            for batch in (first * BATCH..keys).step_by(CLIENTS * BATCH) {
                let puts: Vec<TxnOp> =
                    (batch..keys.min(batch + BATCH)).map(|n| TxnOp::put(key(n), &value[..], None)).collect();
                client.txn(Txn::new().and_then(puts)).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client has failed")??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_told_as_it_was() {
        let mut latencies = latencies();
        for milliseconds in [1, 5, 90_000] {
            latencies.saturating_record(nanos(Duration::from_millis(milliseconds)));
        }
        let sample = Sample { requests: 3, seconds: 1.0, cpu_seconds: 0.003, latencies };
        assert!((sample.quantile_ms(0.5) - 5.0).abs() < 0.1, "{}", sample.quantile_ms(0.5));
        assert!((sample.quantile_ms(1.0) - 90_000.0).abs() < 100.0, "{}", sample.quantile_ms(1.0));
        assert!((sample.cpu_us() - 1000.0).abs() < 0.1);
    }
}

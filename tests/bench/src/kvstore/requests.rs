//! Single requests: puts and reads by one client and by many, of one member and of three.

use anyhow::Result;

use super::load::{Request, closed_loop, fill};
use super::server::Contender;
use super::{Case, Figures, Metric, Scale, metric};
use crate::report::Goal;

/// Keys that are written and read.
const KEYS: usize = 10_000;
const PUT: Request = Request::Put { keys: KEYS, value_bytes: 256 };
const GET: Request = Request::Get { keys: KEYS };

const MANY: &[Metric] = &[
    metric("rate", "1/s", Goal::RatioAtLeast(2.5)),
    metric("p50", "ms", Goal::None),
    metric("p99", "ms", Goal::RatioAtMost(0.5)),
    metric("CPU", "us/op", Goal::RatioAtMost(0.5)),
];
const LONE: &[Metric] = &[
    metric("rate", "1/s", Goal::None),
    metric("p50", "ms", Goal::RatioAtMost(0.6)),
    metric("p99", "ms", Goal::None),
    metric("CPU", "us/op", Goal::None),
];
const READ: &[Metric] = &[
    metric("rate", "1/s", Goal::None),
    metric("p50", "ms", Goal::None),
    metric("p99", "ms", Goal::None),
    metric("CPU", "us/op", Goal::RatioAtMost(0.5)),
];
const FLAT: &[Metric] = &[
    metric("CPU, 10,000 keys", "us/op", Goal::None),
    metric("CPU, 100,000 keys", "us/op", Goal::None),
    metric("CPU, 1,000,000 keys", "us/op", Goal::None),
    metric("growth of CPU from first to last", "x", Goal::AtMost(1.25)),
];

pub(super) const CASES: &[Case] = &[
    Case { name: "put-1", metrics: LONE, run: |at, scale| Box::pin(one_member(at, scale, 1, PUT)) },
    Case { name: "put-100", metrics: MANY, run: |at, scale| Box::pin(one_member(at, scale, 100, PUT)) },
    Case { name: "put-1000", metrics: MANY, run: |at, scale| Box::pin(one_member(at, scale, 1000, PUT)) },
    Case { name: "get-1", metrics: READ, run: |at, scale| Box::pin(one_member(at, scale, 1, GET)) },
    Case { name: "get-100", metrics: READ, run: |at, scale| Box::pin(one_member(at, scale, 100, GET)) },
    Case { name: "three-put-1", metrics: LONE, run: |at, scale| Box::pin(three_members(at, scale, 1)) },
    Case { name: "three-put-100", metrics: MANY, run: |at, scale| Box::pin(three_members(at, scale, 100)) },
    Case { name: "flat", metrics: FLAT, run: |at, scale| Box::pin(flat(at, scale)) },
];

async fn one_member(at: &Contender, scale: Scale, clients: usize, request: Request) -> Result<Figures> {
    let cluster = at.start(1).await?;
    fill(&cluster, KEYS, 256).await?;
    Ok(closed_loop(&cluster, clients, scale, request).await?.figures())
}

async fn three_members(at: &Contender, scale: Scale, clients: usize) -> Result<Figures> {
    let cluster = at.start(3).await?;
    fill(&cluster, KEYS, 256).await?;
    Ok(closed_loop(&cluster, clients, scale, PUT).await?.figures())
}

/// Puts over ever more keys: what one costs must not depend on how many there are.
async fn flat(at: &Contender, scale: Scale) -> Result<Figures> {
    let cluster = at.start(1).await?;
    let mut figures = Figures::new();
    for (metric, keys) in FLAT.iter().zip([10_000, 100_000, 1_000_000]) {
        let keys = keys / scale.divisor;
        fill(&cluster, keys, 100).await?;
        let sample = closed_loop(&cluster, 100, scale, Request::Put { keys, value_bytes: 100 }).await?;
        figures.push((metric.name, sample.cpu_us()));
    }
    figures.push((FLAT[3].name, figures[2].1 / figures[0].1));
    Ok(figures)
}

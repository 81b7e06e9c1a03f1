//! Our store beside etcd: the same load, by the same client, in turn, on the same disk, with the same durability.
//!
//! ```text
//! for each case, so many times in turn:  server of ours ─► load ─► figures
//!                                        server of etcd ─► load ─► figures      the table has the medians
//! ```
//!
//! Invariants:
//! - Each measurement has a fresh server and a fresh folder; nothing of one is left for the next.
//! - The load does not know whom it drives.
//! - A case that fails at one of both says why, and has no figure there.

mod bulk;
mod lease;
mod load;
mod requests;
mod server;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::report::{Goal, Report, Row};
use server::{Contender, Which};

/// Put, get, list, watch and lease at a store
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A case to run, several times for several; all by default
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Smaller sizes and shorter times: shows that it works, not how fast
    #[arg(long)]
    quick: bool,
    /// How often each of the two is measured, in turn; the table has the medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Only ours, without etcd beside it
    #[arg(long)]
    alone: bool,
    /// The folder whose disk is used
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Our binary; the one of this build by default
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Put the table into docs/benchmarks.md
    #[arg(long)]
    write: bool,
}

/// Sizes and times of a run.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// How long a load runs, after it has warmed up.
    time: Duration,
    /// Divides the numbers of keys.
    divisor: usize,
}

/// Figures of one measurement, by the name of the metric.
type Figures = Vec<(&'static str, f64)>;
type Measured<'a> = Pin<Box<dyn Future<Output = Result<Figures>> + 'a>>;

/// One thing to measure.
struct Case {
    name: &'static str,
    metrics: &'static [Metric],
    run: for<'a> fn(&'a Contender, Scale) -> Measured<'a>,
}

/// What is told of a measurement.
struct Metric {
    name: &'static str,
    unit: &'static str,
    goal: Goal,
}

const fn metric(name: &'static str, unit: &'static str, goal: Goal) -> Metric {
    Metric { name, unit, goal }
}

const CASES: [&[Case]; 4] = [requests::CASES, bulk::CASES, watch::CASES, lease::CASES];

impl Args {
    pub(crate) fn measure(self) -> Result<Report> {
        let all: Vec<&Case> = CASES.into_iter().flatten().collect();
        let names = all.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
        for wanted in &self.cases {
            ensure!(
                all.iter().any(|case| case.name == wanted),
                "there is no case {wanted}: there are {names}"
            );
        }
        ensure!(!(self.write && self.quick), "--quick finds no figures that are worth writing down");
        let is_chosen =
            |case: &&Case| self.cases.is_empty() || self.cases.iter().any(|name| name == case.name);
        let chosen: Vec<&Case> = all.into_iter().filter(is_chosen).collect();
        let ours = Contender::new(Which::Ours, self.ours.clone(), self.dir.clone())?;
        let peer = if self.alone { None } else { Some(Contender::new(Which::Etcd, None, self.dir.clone())?) };
        let scale = if self.quick {
            Scale { time: Duration::from_secs(2), divisor: 20 }
        } else {
            Scale { time: Duration::from_secs(10), divisor: 1 }
        };
        let mut rows = Vec::new();
        for case in chosen {
            rows.extend(self.rows(case, &ours, peer.as_ref(), scale)?);
        }
        let report = Report {
            bench: "kvstore",
            peer: peer.map_or_else(|| Ok("none".to_owned()), |peer| peer.version())?,
            command: self.command(),
            rows,
        };
        if self.write {
            crate::report::write_section("kvstore", &report)?;
        }
        Ok(report)
    }

    fn command(&self) -> String {
        let mut command = format!("cargo xtask bench kvstore --repeats {}", self.repeats);
        if self.quick {
            command.push_str(" --quick");
        }
        for case in &self.cases {
            command.push_str(" --case ");
            command.push_str(case);
        }
        command
    }

    fn rows(
        &self,
        case: &Case,
        ours: &Contender,
        peer: Option<&Contender>,
        scale: Scale,
    ) -> Result<Vec<Row>> {
        let mut found: [BTreeMap<&str, Vec<f64>>; 2] = Default::default();
        for turn in 1..=self.repeats {
            for (index, contender) in [Some(ours), peer].into_iter().enumerate() {
                let Some(contender) = contender else { continue };
                // Its own runtime, so that no task of one measurement is left in the next.
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
                let runtime = runtime.context("cannot start the load generator")?;
                let figures = runtime.block_on((case.run)(contender, scale));
                runtime.shutdown_timeout(Duration::from_secs(5));
                match figures {
                    Ok(figures) => {
                        let told: Vec<String> =
                            figures.iter().map(|(name, figure)| format!("{name} {figure:.3}")).collect();
                        eprintln!("{} {turn}/{}, {contender}: {}", case.name, self.repeats, told.join(", "));
                        for (name, figure) in figures {
                            found[index].entry(name).or_default().push(figure);
                        }
                    }
                    Err(error) => eprintln!("{} {turn}/{}, {contender}: {error:#}", case.name, self.repeats),
                }
            }
        }
        let [ours, peer] = found;
        let figure =
            |of: &BTreeMap<&str, Vec<f64>>, metric: &Metric| of.get(metric.name).cloned().map(median);
        let row = |metric: &Metric| {
            let figures = (figure(&ours, metric), figure(&peer, metric));
            // Goals are for the whole sizes.
            let (size, goal) = if self.quick { (" (quick)", Goal::None) } else { ("", metric.goal) };
            Row::new(format!("{}{size}: {}", case.name, metric.name), metric.unit, figures, goal)
        };
        Ok(case.metrics.iter().map(row).collect())
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

//! Benchmarks: what Landbridge does beside what its users run today, in one run on one machine.

mod datapath;
mod datapath_programs;
mod kvstore;
mod lab;
mod report;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use report::Report;

/// The load shares the machine with what it measures: what it takes less of, both have more of.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure a part of Landbridge beside its peer.
#[derive(Parser)]
#[command(name = "cargo xtask bench", version)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    output: Format,
}

#[derive(Subcommand)]
enum Bench {
    Datapath(datapath::Args),
    DatapathPrograms(datapath_programs::Args),
    Kvstore(kvstore::Args),
    Lab(lab::Args),
    /// One side of a load, as a process of a benchmark
    #[command(hide = true, subcommand)]
    Load(datapath::load::Side),
}

/// The form of a result.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Aligned columns.
    Table,
    /// One JSON document.
    Json,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let report: Report = match args.bench {
        Bench::Datapath(datapath) => datapath.measure()?,
        Bench::DatapathPrograms(programs) => programs.measure()?,
        Bench::Load(side) => return side.run(),
        Bench::Kvstore(kvstore) => kvstore.measure()?,
        Bench::Lab(lab) => lab.measure()?,
    };
    match args.output {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

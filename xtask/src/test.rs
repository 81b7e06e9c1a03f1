//! `cargo xtask test`: all tests of the workspace, and an honest count at the end.
//!
//! ```text
//! cargo nextest run ─┐
//!   (or cargo test)  ├─ counts ─┐
//! cargo test --doc ──┘          ├─ verdict ─ `N passed, N failed, N skipped`
//! skip log ─────────────────────┘
//! ```
//!
//! A test that cannot run here returns as if it had passed and appends a line to the skip log, so that neither a missing
//! tool fails a laptop nor a broken set-up looks like success.

mod counts;
mod runner;
mod skip_log;
mod verdict;

use std::{env, process::ExitCode};

use crate::setup;
use runner::Runner;
use skip_log::SkipLog;
use verdict::Run;

/// Sets up what is missing, then runs the tests of the workspace and its doc tests.
///
/// Prints each skipped test with its reason, and `N passed, N failed, N skipped` as the last line. With CI=true, a run
/// without tests fails, and so does a skip for want of eBPF, namespaces or etcd.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose name contains one of these.
    filters: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    setup::run_or_warn();
    let skip_log = SkipLog::create()?;
    let in_ci = env::var_os("CI").is_some_and(|value| value == "true");

    let mut run = Run { in_ci, ..Run::default() };
    for runner in [Runner::of_tests(&args.filters), Runner::of_doc_tests(&args.filters)] {
        let finished = runner.run(skip_log.path())?;
        run.counts = run.counts + finished.counts;
        run.problems.extend(finished.problem);
    }
    match skip_log.read()? {
        Ok(skips) => run.skips = skips,
        Err(unreadable) => run.problems.push(unreadable.to_string()),
    }

    let verdict = run.verdict();
    println!();
    for line in &verdict.lines {
        println!("{line}");
    }
    Ok(if verdict.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! `cargo xtask setup`: finds what is missing on this machine and installs it.
//!
//! ```text
//! gather → Facts → plan → Plan → steps       the second run ends at an empty plan
//! ```
//!
//! Only [`gather`], [`apt`], [`etcd`] and this file touch the machine; what to do is decided in [`plan()`].

mod apt;
mod apt_sources;
mod disk;
mod distro;
mod etcd;
mod etcd_version;
mod facts;
mod gather;
mod packages;
mod plan;
mod tools;

use std::{process::Command, time::Instant};

use anyhow::{Context, bail};

use crate::{
    cache::{Cache, LockedCache},
    process,
};
use facts::Facts;
use plan::{Plan, Step, plan};

/// Installs what building, testing and the demo need, and nothing that is already there.
///
/// Debian packages go to the system (as root), tools and an unpacked etcd into the cache: `$LANDBRIDGE_CACHE`, else
/// `landbridge` in `$XDG_CACHE_HOME` or `~/.cache`. A second run does nothing.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Also install what benches compare with: iptables, nftables, a newer etcd.
    #[arg(long)]
    peers: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cache = Cache::open()?;
    let (_, planned) = look(&cache, args.peers)?;
    if planned.is_empty() {
        nothing_to_do(&planned);
        return Ok(());
    }
    if args.dry_run {
        return dry_run(&planned);
    }
    let locked = cache.lock()?;
    // Another setup may have done it all in the meantime.
    let (facts, planned) = look(&cache, args.peers)?;
    if planned.is_empty() {
        nothing_to_do(&planned);
        return Ok(());
    }
    disk::check(&planned.needs(), &facts.disks)?;
    let start = Instant::now();
    let planned = carry_out(planned, facts, args.peers, &locked)?;
    print_notes(&planned);
    finish(&planned)?;
    println!("setup: done ({:.0?})", start.elapsed());
    Ok(())
}

/// For commands that can do some of their work without what setup may fail to bring.
pub(crate) fn run_or_warn() {
    if let Err(error) = run(&Args::default()) {
        eprintln!("warning: going on without a complete setup: {error:#}");
    }
}

fn nothing_to_do(planned: &Plan) {
    print_notes(planned);
    println!("setup: nothing to do");
}

fn look(cache: &Cache, peers: bool) -> anyhow::Result<(Facts, Plan)> {
    let mut facts = gather::gather(cache)?;
    let mut planned = plan(&facts, peers);
    if !planned.is_empty() && !facts.is_root {
        // Only root can read the lists anew, so what they say now is what counts.
        facts.offered = gather::offered_packages(&facts.installed);
        planned = plan(&facts, peers);
    }
    Ok((facts, planned))
}

fn dry_run(planned: &Plan) -> anyhow::Result<()> {
    for step in &planned.steps {
        println!("setup: would {step}");
    }
    print_notes(planned);
    finish(planned)
}

/// Carries out the steps, and returns the plan that was last in force.
fn carry_out(
    mut planned: Plan,
    mut facts: Facts,
    peers: bool,
    locked: &LockedCache<'_>,
) -> anyhow::Result<Plan> {
    if planned.steps.first() == Some(&Step::RefreshPackageLists) {
        let output = apt::update()?;
        facts.offered = gather::offered_packages(&facts.installed);
        apt::check_lists(&facts.offered, &output)?;
        planned = plan(&facts, peers);
    }
    for step in &planned.steps {
        carry_out_step(step, locked)?;
    }
    Ok(planned)
}

fn carry_out_step(step: &Step, locked: &LockedCache<'_>) -> anyhow::Result<()> {
    let start = Instant::now();
    match step {
        // Done already, before the plan was made again.
        Step::RefreshPackageLists => {}
        Step::InstallPackages(names) => {
            println!("setup: installing {}", names.join(" "));
            apt::install(names)?;
            println!("setup: packages installed ({:.0?})", start.elapsed());
        }
        Step::InstallRustNightly => {
            println!("setup: installing a nightly Rust with library sources");
            install_rust_nightly()?;
            println!("setup: nightly Rust installed ({:.0?})", start.elapsed());
        }
        Step::InstallBpfLinker { llvm_major } => {
            tools::bpf_linker(*llvm_major).install(locked)?;
        }
        Step::UnpackEtcd => {
            let place = etcd::unpack_own(locked).context("cannot unpack the distribution's etcd")?;
            println!("setup: etcd is in {}", place.display());
        }
        Step::UnpackNewerEtcd(mirror) => match etcd::unpack_newer(mirror, locked) {
            Ok(place) => println!("setup: a newer etcd is in {}", place.display()),
            Err(error) => {
                println!(
                    "setup: no newer etcd to be had, benches compare with the distribution's own ({error:#})"
                );
            }
        },
    }
    Ok(())
}

fn install_rust_nightly() -> anyhow::Result<()> {
    let mut command = Command::new("rustup");
    command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    process::run_quietly(&mut command).map_err(|error| {
        let cause = if error.looks_unreachable() { "no network: " } else { "" };
        let next = "run it by hand to see more, then `cargo xtask setup` again";
        anyhow::Error::new(error).context(format!("{cause}rustup cannot install a nightly Rust; {next}"))
    })?;
    Ok(())
}

fn print_notes(planned: &Plan) {
    for note in &planned.notes {
        println!("setup: note: {note}");
    }
}

/// Setup has failed while something is left to the user.
fn finish(planned: &Plan) -> anyhow::Result<()> {
    if planned.by_hand.is_empty() {
        return Ok(());
    }
    bail!("{}", planned.by_hand.join("\nerror: "))
}

//! `clusterctl demo run`: a tour in which every number is measured while it runs.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use landbridge_lab::{Direction, Host, Impairment, Lab, LabName, LabSpec, PingSummary, Share};

use super::called_as;
use crate::output::say;

const INTERVAL: Duration = Duration::from_millis(20);

/// Take a short tour that cleans up after itself
///
/// Builds two clusters of two nodes, lets pods of one reach pods of the other, and does to the link between them
/// what wide-area links do. Ctrl-C at any moment leaves the machine as it was.
#[derive(Args)]
pub(super) struct Run {}

impl Run {
    #[expect(clippy::unused_self, reason = "every subcommand is run the same way")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let start = Instant::now();
        let lab = Lab::start(LabSpec::new(LabName::unique("tour")?))?;
        let (hosts, seconds) = (lab.hosts().count(), start.elapsed().as_secs_f64());
        heading("Two clusters on this machine")?;
        report(format_args!("{hosts} hosts, each a network namespace, stand after {seconds:.2} s"))?;

        heading("Pods of both clusters reach each other over the wide-area router")?;
        let (near, far) = (lab.host("a1p1")?, lab.host("b2p1")?);
        let [v4, v6] = far.addresses().context("a pod without addresses")?;
        for target in [v4, v6] {
            let summary = ask(&near, target, &far, 5)?;
            ensure!(summary.received > 0, "{} does not reach {target}", near.name());
        }
        let link = lab.link("a")?;

        heading("The link of cluster a gets 50 ms longer")?;
        link.set(Direction::Outbound, Impairment { delay: Duration::from_millis(50), ..Impairment::NONE })?;
        ask(&near, v4, &far, 5)?;

        heading("It loses every tenth frame")?;
        link.set(Direction::Outbound, Impairment { loss: Share::percent(10), ..Impairment::NONE })?;
        ask(&near, v4, &far, 100)?;

        heading("It is cut, one way")?;
        link.cut(Direction::Outbound)?;
        let summary = ask(&near, v4, &far, 3)?;
        ensure!(summary.received == 0, "{} was answered over a cut link", near.name());
        let frames = link.counters()?;
        let (outbound, inbound) = (frames.outbound_frames.cut, frames.inbound_frames.cut);
        report(format_args!(
            "{outbound} frames that left cluster a were cut, and {inbound} of those that came to it"
        ))?;

        heading("It is mended")?;
        link.clear()?;
        let summary = ask(&near, v4, &far, 5)?;
        ensure!(summary.received > 0, "{} does not reach {v4} over a mended link", near.name());

        heading("Cleaned up")?;
        lab.remove()?;
        report(format_args!("nothing is left, after {:.1} s", start.elapsed().as_secs_f64()))?;
        say(format_args!("\nKeep a lab to play with:  {} demo up", called_as()))
    }
}

fn heading(text: &str) -> anyhow::Result<()> {
    say(format_args!("\n{text}"))
}

fn report(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    say(format_args!("  {text}"))
}

fn ask(from: &Host, target: IpAddr, to: &Host, count: u32) -> anyhow::Result<PingSummary> {
    let summary = from.ping(target, count, INTERVAL)?;
    let PingSummary { sent, received, shortest, .. } = summary;
    let time = shortest.map(|time| format!(", the fastest after {:.2} ms", time.as_secs_f64() * 1_000.0));
    let (from, to, time) = (from.name(), to.name(), time.unwrap_or_default());
    report(format_args!("{from} asks {to} at {target}: {received} of {sent} answered{time}"))?;
    Ok(summary)
}

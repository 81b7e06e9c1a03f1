//! `clusterctl demo link`: cuts, degrades and shows the links of a lab.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;
use landbridge_lab::{ChannelCounters, Direction, Impairment, Link, RelayCounters, Share};
use serde::Serialize;

use super::LabChoice;
use crate::output::{Format, print_json, print_table};

/// Cut or degrade a link, or show what is done to it
///
/// A link is named after the node at its end, or after the cluster for the one to the wide-area router. What is
/// given replaces what was set before in the chosen directions; with nothing given, the link is only shown.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct LinkArgs {
    #[command(flatten)]
    lab: LabChoice,
    /// The link, such as a1 for a node's and a for a cluster's
    link: String,
    /// Only what leaves the node or the cluster
    #[arg(long, conflicts_with = "inbound")]
    outbound: bool,
    /// Only what goes to the node or the cluster
    #[arg(long)]
    inbound: bool,
    /// Let nothing through
    #[arg(long, conflicts_with_all = ["delay", "loss", "duplicate", "rate", "clear"])]
    cut: bool,
    /// Delay every frame, such as 50ms
    #[arg(long, value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// Drop a share of the frames, such as 10%
    #[arg(long, value_name = "SHARE")]
    loss: Option<Share>,
    /// Send a share of the frames twice, such as 1%
    #[arg(long, value_name = "SHARE")]
    duplicate: Option<Share>,
    /// Limit the rate, such as 10mbit
    #[arg(long, value_parser = parse_rate)]
    rate: Option<NonZeroU64>,
    /// Take back everything that was set
    #[arg(long, conflicts_with_all = ["delay", "loss", "duplicate", "rate"])]
    clear: bool,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Serialize)]
struct Shown<'a> {
    link: &'a str,
    #[serde(flatten)]
    counters: RelayCounters,
}

impl LinkArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let link = self.lab.open()?.link(&self.link)?;
        let counters = self.change(&link)?;
        if self.output == Format::Json {
            return print_json(&Shown { link: link.name(), counters });
        }
        print_table(
            ["DIRECTION", "STATE", "RECEIVED", "DELIVERED", "CUT", "LOST", "DUPLICATED", "OVERFLOWED"],
            [
                row(Direction::Outbound, counters.outbound, counters.outbound_frames),
                row(Direction::Inbound, counters.inbound, counters.inbound_frames),
            ],
        )
    }

    /// Makes the change that is asked for, if any.
    fn change(&self, link: &Link) -> anyhow::Result<RelayCounters> {
        let impairment = if self.cut {
            Impairment::CUT
        } else {
            Impairment {
                delay: self.delay.unwrap_or_default(),
                loss: self.loss.unwrap_or_default(),
                duplicate: self.duplicate.unwrap_or_default(),
                rate_bits_per_second: self.rate,
                ..Impairment::NONE
            }
        };
        let given =
            self.delay.is_some() || self.loss.is_some() || self.duplicate.is_some() || self.rate.is_some();
        let counters = match (given || self.cut || self.clear, self.outbound, self.inbound) {
            (false, ..) => link.counters()?,
            (true, true, _) => link.set(Direction::Outbound, impairment)?,
            (true, _, true) => link.set(Direction::Inbound, impairment)?,
            (true, ..) if self.clear => link.clear()?,
            (true, ..) => link.set_both(impairment)?,
        };
        Ok(counters)
    }
}

fn row(direction: Direction, impairment: Impairment, frames: ChannelCounters) -> [String; 8] {
    let ChannelCounters { received, delivered, cut, lost, duplicated, overflowed } = frames;
    let [received, delivered, cut, lost, duplicated, overflowed] =
        [received, delivered, cut, lost, duplicated, overflowed].map(|count| count.to_string());
    [direction.to_string(), describe(impairment), received, delivered, cut, lost, duplicated, overflowed]
}

fn describe(impairment: Impairment) -> String {
    if impairment == Impairment::NONE {
        return "clear".to_owned();
    }
    if impairment.cut {
        return "cut".to_owned();
    }
    let mut parts = Vec::new();
    if !impairment.delay.is_zero() {
        parts.push(format!("delay {}", humantime::format_duration(impairment.delay)));
    }
    for (name, share) in [("loss", impairment.loss), ("duplicate", impairment.duplicate)] {
        if share != Share::ZERO {
            parts.push(format!("{name} {share}"));
        }
    }
    if let Some(rate) = impairment.rate_bits_per_second {
        parts.push(format!("rate {rate}bit"));
    }
    parts.join(" ")
}

/// Reads a rate as tc(8) does: a whole number and `bit`, `kbit`, `mbit` or `gbit`.
fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit {
        "bit" => Some(1),
        "kbit" => Some(1_000),
        "mbit" => Some(1_000_000),
        "gbit" => Some(1_000_000_000),
        _ => None,
    };
    let rate = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    rate.and_then(NonZeroU64::new)
        .ok_or_else(|| "use a number and a unit, such as 500kbit or 10mbit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_tc_reads_them() {
        for (text, rate) in
            [("1bit", 1), ("500kbit", 500_000), ("10mbit", 10_000_000), ("2gbit", 2_000_000_000)]
        {
            assert_eq!(parse_rate(text).map(NonZeroU64::get), Ok(rate));
        }
        for text in [
            "",
            "10",
            "mbit",
            "0bit",
            "-1bit",
            "1.5mbit",
            "10 mbit",
            "99999999999999999999bit",
            "18446744073709551615gbit",
        ] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_state_of_a_link_is_described() {
        assert_eq!(describe(Impairment::NONE), "clear");
        assert_eq!(describe(Impairment::CUT), "cut");
        let loss = "0.5%".parse().unwrap();
        let degraded = Impairment { delay: Duration::from_millis(50), loss, ..Impairment::NONE };
        assert_eq!(describe(degraded), "delay 50ms loss 0.5%");
    }
}

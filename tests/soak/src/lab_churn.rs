//! A lab comes, its links are impaired at random, programs are killed and restarted, and it goes without a trace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landbridge_lab::{Direction, Impairment, Lab, LabName, LabSpec, Share};

/// Changes made to one lab.
const CHANGES: usize = 12;

pub(crate) fn run(dice: &mut fastrand::Rng) -> Result<()> {
    let name = LabName::unique("churn")?;
    let lab = Lab::start(LabSpec::new(name.clone()).with_clusters(2, dice.u8(1..=3), 1))?;
    let (near, far) = (lab.host("a1p1")?, lab.host("b1p1")?);
    let target = far.addresses().context("a pod has addresses")?[usize::from(dice.bool())];

    let mut sleep = near.command("sleep")?;
    sleep.arg("600");
    let mut program = near.spawn("sleeper", sleep)?;
    for _ in 0..CHANGES {
        let links = ["a", "b", "a1", "b1"];
        let link = lab.link(links[dice.usize(..links.len())])?;
        let direction = Direction::BOTH[dice.usize(..2)];
        match dice.u8(..5) {
            0 => link.cut(direction)?,
            1 => link.clear()?,
            2 => link.set(
                direction,
                Impairment { delay: Duration::from_millis(dice.u64(..20)), ..Impairment::NONE },
            )?,
            3 => {
                link.set(direction, Impairment { loss: Share::percent(dice.u8(..=50)), ..Impairment::NONE })?
            }
            _ => link.set(
                direction,
                Impairment { duplicate: Share::percent(dice.u8(..=100)), ..Impairment::NONE },
            )?,
        };
        near.ping(target, 2, Duration::from_millis(10))?;
        if dice.bool() {
            program.restart()?;
        }
    }
    for link in ["a", "b", "a1", "b1"] {
        lab.link(link)?.clear()?;
    }
    ensure!(near.reaches(target)?, "{} does not reach {target} after all links were cleared", near.name());
    lab.remove()?;
    let left = std::fs::read_dir("/run/netns")?.flatten().map(|entry| entry.path());
    let left: Vec<_> = left.filter(|path| path.to_string_lossy().contains(name.as_str())).collect();
    ensure!(left.is_empty(), "the lab left {left:?}");
    Ok(())
}

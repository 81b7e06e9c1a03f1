//! What a process must not gather over time.

use std::fs;

use anyhow::{Context, Result, ensure};

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    descriptors: usize,
    threads: usize,
}

impl Resources {
    pub(crate) fn of_this_process() -> Result<Self> {
        let count = |folder: &str| -> Result<usize> {
            Ok(fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?.count())
        };
        Ok(Self { descriptors: count("/proc/self/fd")?, threads: count("/proc/self/task")? })
    }

    /// Fails if `later` holds more than this.
    pub(crate) fn check_not_exceeded(self, later: Self) -> Result<()> {
        let within = later.descriptors <= self.descriptors && later.threads <= self.threads;
        ensure!(within, "the process gathers descriptors or threads: {self:?} became {later:?}");
        Ok(())
    }
}

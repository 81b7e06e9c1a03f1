//! What an engine stands on: files, and time.
//!
//! ```text
//! Engine ─┬─► Disk: log, snapshots          kernel's files, or those of a test that fail, fill up and take their time
//!         ├─► Clock: leases, tokens         monotonic, or that of a test that jumps
//!         └─► Hands: what would block       threads of their own; in a simulation, the one thread that there is
//! ```

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::wal::Making;
use crate::wal::disk::{Disk, RealDisk};

/// What an engine stands on. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Platform {
    /// Where its files are.
    pub disk: Arc<dyn Disk>,
    /// What leases and tokens live by.
    pub clock: Arc<dyn Clock>,
    /// Who makes the segments of the log that will be needed.
    pub(crate) making: Making,
    #[cfg(test)]
    pub(crate) simulated: Option<crate::engine::Simulated>,
}

impl Default for Platform {
    /// The kernel's files and clock.
    fn default() -> Self {
        Self::new(Arc::new(RealDisk), Arc::new(RealClock))
    }
}

/// Tells how time goes on. It should not go back; whoever uses it bears that it does.
pub trait Clock: Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;
}

/// The kernel's monotonic clock, or that of a runtime whose time is paused.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Platform {
    /// Other files, and another clock, than the kernel's.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        Self {
            disk,
            clock,
            making: Making::Ahead,
            #[cfg(test)]
            simulated: None,
        }
    }

    /// Does what would block, away from the tasks that must not wait.
    ///
    /// # Errors
    /// It panicked, or the runtime ends.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        #[cfg(test)]
        if self.simulated.is_some() {
            return Ok(work());
        }
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }
}

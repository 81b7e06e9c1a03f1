//! Degrades a link in user space, for a kernel without netem.
//!
//! ```text
//! without a relay:   node eth0 ══ port a1 ─ br0
//! with one:          node eth0 ══ port a1 ⇄ relay ⇄ r-a1 ─ br0
//! ```
//!
//! A relay comes with the first impairment of a link and goes with the last. Of an owned lab it is a thread, of a
//! kept one a process of its own that listens on a control socket.

pub(crate) mod channel;
pub(crate) mod control;
mod device;
pub(crate) mod engine;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use self::control::{Command, RelayCounters};
use self::engine::Engine;
use crate::error::{IoContext, LabError};
use crate::record::LabFolder;
use crate::{Lab, LabName};

/// A direction of a link, as its named end sees it: the node of a node's link, the cluster of a cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Away from the node or the cluster.
    Outbound,
    /// To the node or the cluster.
    Inbound,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Outbound, Self::Inbound];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

/// The extension of a relay process's control socket.
pub(crate) const SOCKET: &str = "sock";
/// What a relay process prints when it stands in its link and listens.
pub(crate) const READY: &str = "ready";

/// The relays of an owned lab, by the name of their link.
#[derive(Clone, Default)]
pub(crate) struct RelayThreads {
    engines: Arc<Mutex<BTreeMap<String, Engine>>>,
}

impl RelayThreads {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Engine>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all relays.
    pub(crate) fn stop_all(&self) {
        while let Some((_, engine)) = { self.lock().pop_first() } {
            // A relay that has ended by itself is stopped too.
            let _: Result<RelayCounters, LabError> = engine.stop();
        }
    }
}

/// Runs the relay of a link of a kept lab until it is told to stop: the main function of a relay process.
///
/// # Errors
/// Any of [`LabError`], before the relay stands.
pub fn run_relay_process(lab: &LabName, link: &str) -> Result<(), LabError> {
    let place = Lab::open(lab, Vec::new())?.relay_place(link)?;
    // Whoever starts a relay holds the link's lock and has found that none runs.
    let socket = LabFolder::of(lab).relay_file(link, SOCKET)?;
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context(|| format!("remove {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&socket).context(|| format!("listen on {}", socket.display()))?;
    let (engine, _) = Engine::start(&place, Command::Report)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}")
        .and_then(|()| stdout.flush())
        .context(|| "say that the relay is ready".to_owned())?;
    control::serve(&listener, &engine)?;
    fs::remove_file(&socket).context(|| format!("remove {}", socket.display()))
}

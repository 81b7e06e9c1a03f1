//! A cable of a lab that can be cut and degraded.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::error::{IoContext, LabError};
use crate::namespace::Namespace;
use crate::record::LabFolder;
use crate::relay::channel::Impairment;
use crate::relay::control::{self, RelayCounters};
use crate::relay::engine::{self, Engine};
use crate::relay::{READY, RelayThreads};
use crate::topology::{CableEnd, Role, Topology};
use crate::{Direction, LabName, cgroup};

/// Where a link runs. The relay always stands at the switch, which has no address and no routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkPlan {
    /// The node or the cluster at the named end.
    pub(crate) name: String,
    /// Position of the switch among the hosts.
    pub(crate) switch: usize,
    /// The switch's interface.
    pub(crate) port: String,
    /// Position of the host at the other end, a node or the router.
    pub(crate) far: usize,
    /// The interface at the other end.
    pub(crate) far_interface: String,
    /// Whether what arrives at the port leaves the named end: so for a node, which is behind its port; not for a
    /// cluster, whose port leads to the router.
    pub(crate) port_is_outbound: bool,
}

impl LinkPlan {
    /// Every link of a lab.
    fn all(topology: &Topology) -> impl Iterator<Item = Self> {
        topology.cables.iter().filter_map(|cable| {
            let role = |end: &CableEnd| topology.hosts[end.host].role;
            let [one, other] = &cable.ends;
            let (near, far) = if role(one) == Role::Switch { (one, other) } else { (other, one) };
            if role(near) != Role::Switch {
                return None;
            }
            let named = if role(far) == Role::Node { far } else { near };
            Some(Self {
                name: topology.hosts[named.host].name.clone(),
                switch: near.host,
                port: near.interface.clone(),
                far: far.host,
                far_interface: far.interface.clone(),
                port_is_outbound: named.host == far.host,
            })
        })
    }

    pub(crate) fn find(topology: &Topology, name: &str) -> Option<Self> {
        Self::all(topology).find(|plan| plan.name == name)
    }

    pub(crate) fn names(topology: &Topology) -> Vec<String> {
        Self::all(topology).map(|plan| plan.name).collect()
    }
}

/// The cable between a node and its switch, or between a cluster and the router.
///
/// Both directions are the kernel's own path until something is set, and again once nothing is. A few frames may
/// be lost at those two moments.
pub struct Link {
    plan: LinkPlan,
    switch: Namespace,
    far: Namespace,
    relay: Relay,
}

/// Where the link's relay runs, if it has one.
enum Relay {
    Thread(RelayThreads),
    Process { lab: LabName, command: Vec<String>, folder: LabFolder },
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn with_threads(
        plan: LinkPlan,
        (switch, far): (Namespace, Namespace),
        relays: RelayThreads,
    ) -> Self {
        Self { plan, switch, far, relay: Relay::Thread(relays) }
    }

    pub(crate) fn with_process(
        plan: LinkPlan,
        (switch, far): (Namespace, Namespace),
        lab: LabName,
        command: Vec<String>,
        folder: LabFolder,
    ) -> Self {
        Self { plan, switch, far, relay: Relay::Process { lab, command, folder } }
    }

    /// The node or the cluster at the named end.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Changes what happens to one direction; the other stays as it is.
    ///
    /// # Errors
    /// [`LabError::Relay`], [`LabError::Io`] or [`LabError::Netlink`]; the link is then as it was.
    pub fn set(&self, direction: Direction, impairment: Impairment) -> Result<RelayCounters, LabError> {
        if impairment == Impairment::NONE && self.counters()?.is_idle() {
            // Also mends a link whose relay was killed.
            return self.clear();
        }
        let counters = self.ask_or_start(control::Command::Set(direction, impairment))?;
        if counters.is_idle() { self.clear() } else { Ok(counters) }
    }

    /// Changes what happens to both directions.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_both(&self, impairment: Impairment) -> Result<RelayCounters, LabError> {
        self.set(Direction::Outbound, impairment)?;
        self.set(Direction::Inbound, impairment)
    }

    /// Lets nothing through in one direction.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn cut(&self, direction: Direction) -> Result<RelayCounters, LabError> {
        self.set(direction, Impairment::CUT)
    }

    /// Gives both directions back to the kernel, and returns what its relay did.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn clear(&self) -> Result<RelayCounters, LabError> {
        match &self.relay {
            Relay::Thread(relays) => {
                let engine = relays.lock().remove(&self.plan.name);
                engine.map_or(Ok(RelayCounters::default()), |engine| engine.stop())
            }
            Relay::Process { folder, .. } => match self.ask_process(folder, control::Command::Stop)? {
                Some(counters) => Ok(counters),
                None => {
                    engine::restore(&self.plan, &self.switch, &self.far).map(|()| RelayCounters::default())
                }
            },
        }
    }

    /// How the link is set and what became of its frames since it has a relay; all zero without one.
    ///
    /// # Errors
    /// [`LabError::Relay`].
    pub fn counters(&self) -> Result<RelayCounters, LabError> {
        match &self.relay {
            Relay::Thread(relays) => {
                let engines = relays.lock();
                engines
                    .get(&self.plan.name)
                    .map_or(Ok(RelayCounters::default()), |e| e.ask(control::Command::Report))
            }
            Relay::Process { folder, .. } => {
                Ok(self.ask_process(folder, control::Command::Report)?.unwrap_or_default())
            }
        }
    }

    fn ask_or_start(&self, command: control::Command) -> Result<RelayCounters, LabError> {
        match &self.relay {
            Relay::Thread(relays) => {
                let mut engines = relays.lock();
                if !engines.contains_key(&self.plan.name) {
                    let engine = Engine::start(&self.plan, &self.switch, &self.far)?;
                    engines.insert(self.plan.name.clone(), engine);
                }
                engines[&self.plan.name].ask(command)
            }
            Relay::Process { lab, command: program, folder } => {
                if let Some(counters) = self.ask_process(folder, command)? {
                    return Ok(counters);
                }
                self.start_process(lab, program, folder)?;
                let gone = || LabError::Relay {
                    link: self.plan.name.clone(),
                    reason: "it ended at once".to_owned(),
                };
                self.ask_process(folder, command)?.ok_or_else(gone)
            }
        }
    }

    fn ask_process(
        &self,
        folder: &LabFolder,
        command: control::Command,
    ) -> Result<Option<RelayCounters>, LabError> {
        control::ask(&folder.relay_socket(&self.plan.name), &self.plan.name, command)
    }

    /// Starts the relay process of a kept lab, which outlives this one, and waits until it stands.
    fn start_process(&self, lab: &LabName, program: &[String], folder: &LabFolder) -> Result<(), LabError> {
        let link = &self.plan.name;
        let failed = |reason: String| LabError::Relay { link: link.clone(), reason };
        let (program, args) =
            program.split_first().ok_or_else(|| failed("the lab names no program".to_owned()))?;
        let log_path = folder.make("log")?.join(format!("relay-{link}.log"));
        let log = fs::File::create(&log_path).map_err(|error| crate::error::write_error(&log_path, error))?;
        let mut command = Command::new(program);
        command.args(args).arg(lab.as_str()).arg(link);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // Ctrl-C is for the command that started it.
        command.process_group(0);
        let mut child = command.spawn().context(|| format!("start {program} as relay of link {link}"))?;
        let adopted = cgroup::adopt(lab, "relays", child.id());
        let mut word = String::new();
        let stdout = child.stdout.take().expect("standard output was asked for");
        // End of file, too, when the relay fails.
        let read = BufReader::new(stdout).read_line(&mut word);
        if adopted.is_ok() && read.is_ok() && word.trim_end() == READY {
            return Ok(());
        }
        let _ = child.kill().and_then(|()| child.wait());
        adopted?;
        Err(failed(fs::read_to_string(&log_path).unwrap_or_default().trim().to_owned()))
    }
}

//! A cable of a lab that can be cut and degraded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ChildStdout, Stdio};
use std::time::Duration;
use std::{fmt, fs};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{IoContext, LabError, write_error};
use crate::file_lock::FileLock;
use crate::record::{self, LabFolder};
use crate::relay::channel::Impairment;
use crate::relay::control::{self, Command, RelayCounters};
use crate::relay::engine::{Engine, RelayPlace};
use crate::relay::{READY, RelayThreads, SOCKET};
use crate::topology::{CableEnd, Role, Topology};
use crate::{Direction, LabName, cgroup};

/// A relay stands after some milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Another process may have to wait for a relay that does not answer.
const TURN_DEADLINE: Duration = Duration::from_secs(30);

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
    place: RelayPlace,
    relay: Relay,
}

/// Where the link's relay runs, if it has one.
enum Relay {
    Thread(RelayThreads),
    Process(RelayProgram),
}

/// How the relay of a link of a kept lab is started and found.
pub(crate) struct RelayProgram {
    pub(crate) lab: LabName,
    pub(crate) command: Vec<OsString>,
    pub(crate) folder: LabFolder,
    /// The folder for what relays print.
    pub(crate) logs: PathBuf,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn with_threads(place: RelayPlace, relays: RelayThreads) -> Self {
        Self { place, relay: Relay::Thread(relays) }
    }

    pub(crate) fn with_process(place: RelayPlace, program: RelayProgram) -> Self {
        Self { place, relay: Relay::Process(program) }
    }

    /// The node or the cluster at the named end.
    pub fn name(&self) -> &str {
        &self.place.plan.name
    }

    /// Changes what happens to one direction; the other stays as it is.
    ///
    /// # Errors
    /// [`LabError::InvalidImpairment`], [`LabError::Relay`], [`LabError::TimedOut`], [`LabError::Io`] or
    /// [`LabError::Netlink`]; the link is then as it was.
    pub fn set(&self, direction: Direction, impairment: Impairment) -> Result<RelayCounters, LabError> {
        impairment.validate()?;
        self.change(Command::Set(direction, impairment))
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

    /// Gives both directions back to the kernel, and returns what its relay did. Frames under way arrive at once.
    /// Mends a link whose relay was killed.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn clear(&self) -> Result<RelayCounters, LabError> {
        self.change(Command::Stop)
    }

    /// How the link is set and what became of its frames since it has a relay; all zero without one.
    ///
    /// # Errors
    /// [`LabError::RelayDied`], and as [`Self::set`].
    pub fn counters(&self) -> Result<RelayCounters, LabError> {
        match &self.relay {
            Relay::Thread(relays) => {
                let engines = relays.lock();
                engines
                    .get(self.name())
                    .map_or(Ok(RelayCounters::default()), |engine| engine.ask(Command::Report))
            }
            Relay::Process(program) => {
                let _turn = program.lock(self.name())?;
                match program.ask(self.name(), Command::Report)? {
                    Some(counters) => Ok(counters),
                    None if self.place.is_whole()? => Ok(RelayCounters::default()),
                    None => {
                        Err(LabError::RelayDied { lab: program.lab.clone(), link: self.name().to_owned() })
                    }
                }
            }
        }
    }

    /// Has the relay carry out a command: starts it for the first impairment, and ends it with the last.
    fn change(&self, command: Command) -> Result<RelayCounters, LabError> {
        match &self.relay {
            Relay::Thread(relays) => self.change_thread(&mut relays.lock(), command),
            Relay::Process(program) => {
                let _turn = program.lock(self.name())?;
                self.change_process(program, command)
            }
        }
    }

    fn change_thread(
        &self,
        engines: &mut BTreeMap<String, Engine>,
        command: Command,
    ) -> Result<RelayCounters, LabError> {
        let counters = match engines.get(self.name()) {
            Some(engine) if !matches!(command, Command::Stop) => engine.ask(command)?,
            None if !command.is_idle() => {
                let (engine, counters) = Engine::start(&self.place, command)?;
                engines.insert(self.name().to_owned(), engine);
                counters
            }
            _ => RelayCounters::default(),
        };
        if !counters.is_idle() {
            return Ok(counters);
        }
        engines.remove(self.name()).map_or(Ok(counters), |engine| engine.stop())
    }

    fn change_process(&self, program: &RelayProgram, command: Command) -> Result<RelayCounters, LabError> {
        let mut answer = program.ask(self.name(), command)?;
        if answer.is_none() && !command.is_idle() {
            program.start(self.name())?;
            answer = program.ask(self.name(), command)?;
        }
        match answer {
            Some(counters) if matches!(command, Command::Stop) || !counters.is_idle() => Ok(counters),
            Some(_) => Ok(program.ask(self.name(), Command::Stop)?.unwrap_or_default()),
            // No relay runs. One that was killed has left the link broken.
            None => self.place.restore().map(|()| RelayCounters::default()),
        }
    }
}

impl RelayProgram {
    /// Waits until no other process changes the link.
    fn lock(&self, link: &str) -> Result<FileLock, LabError> {
        FileLock::acquire(&self.folder.relay_file(link, "lock")?, TURN_DEADLINE)
    }

    fn ask(&self, link: &str, command: Command) -> Result<Option<RelayCounters>, LabError> {
        control::ask(&self.folder.relay_file(link, SOCKET)?, link, command)
    }

    /// Starts the relay process, which outlives this one, and waits until it stands.
    fn start(&self, link: &str) -> Result<(), LabError> {
        let failed = |reason: String| LabError::Relay { link: link.to_owned(), reason };
        let (program, args) =
            self.command.split_first().ok_or_else(|| failed("no program is named".to_owned()))?;
        record::make_folder(&self.logs)?;
        let log_path = self.logs.join(format!("relay-{link}.log"));
        let log = fs::File::create(&log_path).map_err(|error| write_error(&log_path, error))?;
        let mut command = process::Command::new(program);
        command.args(args).arg(self.lab.as_str()).arg(link);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // Ctrl-C is for the command that started it.
        command.process_group(0);
        let mut child =
            command.spawn().context(|| format!("start {} as relay of link {link}", program.display()))?;
        let stdout = child.stdout.take().expect("standard output was asked for");
        let stands = cgroup::adopt(&self.lab, "relays", child.id()).and_then(|()| first_line(stdout, link));
        match stands {
            Ok(word) if word == READY => Ok(()),
            outcome => {
                let _ = child.kill().and_then(|()| child.wait());
                outcome?;
                Err(failed(fs::read_to_string(&log_path).unwrap_or_default().trim().to_owned()))
            }
        }
    }
}

/// The first line that a relay prints; empty if it ends without one.
fn first_line(mut stdout: ChildStdout, link: &str) -> Result<String, LabError> {
    let timeout = Timespec::try_from(START_DEADLINE).expect("ten seconds fit a timespec");
    let readable = poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&timeout));
    if readable.context(|| format!("wait for the relay of link {link}"))? == 0 {
        let what = format!("the relay of link {link} to stand");
        return Err(LabError::TimedOut { what, seconds: START_DEADLINE.as_secs() });
    }
    // The line is written at once.
    let mut line = [0; 64];
    let len = stdout.read(&mut line).context(|| format!("read what the relay of link {link} says"))?;
    Ok(String::from_utf8_lossy(&line[..len]).trim().to_owned())
}

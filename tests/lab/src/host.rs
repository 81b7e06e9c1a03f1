//! A host of a lab: where programs run.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::address::NodeAddresses;
use crate::error::{IoContext, LabError};
use crate::namespace::Namespace;
use crate::topology::{HostPlan, Place};
use crate::{Capture, Process, Role, cgroup, record};

/// One host of a lab. Cheap to clone; it does not keep the lab alive.
#[derive(Clone)]
pub struct Host {
    pub(crate) plan: HostPlan,
    pub(crate) namespace: Namespace,
    pub(crate) namespace_path: PathBuf,
    /// Covers the host and, of a node, its pods.
    pub(crate) cgroup: PathBuf,
    /// Where the host's own processes go.
    pub(crate) leaf_cgroup: PathBuf,
    /// The host's folder on the lab's bpf filesystem.
    pub(crate) bpf: PathBuf,
    /// The lab's folder on disk.
    pub(crate) data: PathBuf,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.plan.name)
            .field("role", &self.plan.role)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// The name, such as `a1` for a node and `a1p1` for a pod on it.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// What the host is.
    pub fn role(&self) -> Role {
        self.plan.role
    }

    /// The file that the host's network namespace is mounted on.
    pub fn namespace_path(&self) -> &std::path::Path {
        &self.namespace_path
    }

    /// The root of the host's cgroup tree; a node's covers its pods.
    pub fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    /// The addresses of a node, or of the node that a pod is on.
    pub fn node_addresses(&self) -> Option<NodeAddresses> {
        match self.plan.place {
            Place::Node(addresses) | Place::Pod { addresses, .. } => Some(addresses),
            Place::Elsewhere => None,
        }
    }

    /// The addresses that the host is reached at, IPv4 first: of a node in the underlay, of a pod in the
    /// `PodCIDR`. The router and the switches have none of that kind.
    pub fn addresses(&self) -> Option<[std::net::IpAddr; 2]> {
        match self.plan.place {
            Place::Node(addresses) => Some(addresses.underlay()),
            Place::Pod { addresses, number, .. } => Some(addresses.pod(number)),
            Place::Elsewhere => None,
        }
    }

    /// A folder of the host on the bpf filesystem of the lab.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be made.
    pub fn bpf_folder(&self) -> Result<PathBuf, LabError> {
        record::make_folder(&self.bpf)?;
        Ok(self.bpf.clone())
    }

    /// A folder on disk for the data of the host's programs; it goes with the lab.
    ///
    /// # Errors
    /// [`LabError::DiskFull`] or [`LabError::Io`] if it cannot be made.
    pub fn data_folder(&self) -> Result<PathBuf, LabError> {
        let folder = self.data.join("hosts").join(self.name());
        record::make_folder(&folder)?;
        Ok(folder)
    }

    /// A command that will run inside the host: in its namespace and its cgroup.
    ///
    /// It sees the same files as the caller; `/sys` is that of the machine.
    ///
    /// # Errors
    /// [`LabError::Io`] if the host is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command, LabError> {
        let procs = self.leaf_cgroup.join("cgroup.procs");
        let procs =
            OpenOptions::new().write(true).open(&procs).context(|| format!("open {}", procs.display()))?;
        let mut command = Command::new(program);
        enter_before_exec(&mut command, self.namespace.fd(), procs);
        Ok(command)
    }

    /// Runs a program inside the host to its end.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be started. How it ended is in the output.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output, LabError> {
        self.command(program)?.args(args).output().context(|| format!("run {program} in {}", self.name()))
    }

    /// Starts a long-running program inside the host, as `name`. What it prints goes to the file
    /// [`Process::log_path`].
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process, LabError> {
        let log = self.data.join("log");
        record::make_folder(&log)?;
        let log = log.join(format!("{}-{name}.log", self.name()));
        Process::start(format!("{name} in {}", self.name()), command, log)
    }

    /// Runs `work` on a thread inside the host's namespace, for sockets and netlink of the test itself.
    ///
    /// # Errors
    /// [`LabError::Io`] if the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.namespace.run(work).context(|| format!("enter the namespace of {}", self.name()))
    }

    /// Writes the packets that pass an interface of the host to a pcap file, until the capture is stopped.
    ///
    /// # Errors
    /// [`LabError::Io`] if the interface does not exist or the file cannot be written.
    pub fn capture(&self, interface: &str, file: impl Into<PathBuf>) -> Result<Capture, LabError> {
        Capture::start(&self.namespace, interface, file.into())
    }

    /// The processes of the host, and of a node's pods.
    pub fn processes(&self) -> Vec<u32> {
        cgroup::processes(&self.cgroup)
    }

    /// Stops all processes of the host where they are, those of a node's pods included.
    ///
    /// # Errors
    /// [`LabError::Io`] or [`LabError::TimedOut`].
    pub fn pause(&self) -> Result<(), LabError> {
        cgroup::freeze(&self.cgroup, true)
    }

    /// Lets paused processes go on.
    ///
    /// # Errors
    /// [`LabError::Io`] or [`LabError::TimedOut`].
    pub fn resume(&self) -> Result<(), LabError> {
        cgroup::freeze(&self.cgroup, false)
    }

    /// Kills all processes of the host, those of a node's pods included, and waits until they are gone.
    ///
    /// # Errors
    /// [`LabError::Io`] or [`LabError::TimedOut`].
    pub fn kill(&self) -> Result<(), LabError> {
        cgroup::kill(&self.cgroup)
    }
}

#[expect(unsafe_code, reason = "what runs between fork and exec is unsafe to choose")]
fn enter_before_exec(command: &mut Command, namespace: Arc<OwnedFd>, mut cgroup_procs: File) {
    let enter = move || -> io::Result<()> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        cgroup_procs.write_all(b"0")
    };
    // SAFETY: the closure makes two system calls, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
}

//! What can go wrong between the agent and the kernel.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;

use crate::probes::Feature;
use crate::shape::MapShape;

/// Why the datapath is not in place.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The maps cannot be made.
    #[error("cannot load the maps of the datapath")]
    Object(#[source] EbpfError),
    /// The object lacks something that this crate expects: the two were not built together.
    #[error("the embedded object has no {0}: build it again from bpf/programs of this source tree")]
    Missing(&'static str),
    /// A map is not what this version works with.
    #[error(
        "the pinned map {path} is a {found}, and this version works with a {wanted}: ask for the size it has, or delete the pins, which cuts the pods off until everything is filled in again"
    )]
    Shape {
        /// Where it is pinned.
        path: PathBuf,
        /// What is pinned there.
        found: MapShape,
        /// What the programs expect.
        wanted: MapShape,
    },
    /// A newer version left its pins.
    #[error(
        "the pins {path} are of a newer version: their layout is {found}, and this version knows {known}; start the newer version, or delete the pins, which cuts the pods off until everything is filled in again"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// The newest that this version knows.
        known: u32,
    },
    /// What is in the pinned map of services cannot be: two services share backends, or have backends that are not there.
    #[error("the pinned map SERVICES is damaged: delete the pins {0}, everything is filled in again")]
    Services(PathBuf),
    /// The kernel's verifier refused a program.
    #[error("the kernel refuses program {program}, last said:\n{log}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A program cannot be loaded.
    #[error("cannot load program {program}")]
    Load {
        /// The program.
        program: &'static str,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// There is no interface of that name where the calling thread is.
    #[error("cannot find interface {interface:?} in this network namespace")]
    NoInterface {
        /// The name.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The cgroup cannot be opened.
    #[error("cannot open cgroup {path}: it has to be a folder of cgroup v2")]
    Cgroup {
        /// The folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program cannot be attached.
    #[error("cannot attach program {program} to {target:?}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface, as the calling thread sees it, or the cgroup's folder.
        target: String,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// A program cannot be detached.
    #[error("cannot detach program {program} from {interface:?}")]
    Detach {
        /// The program.
        program: &'static str,
        /// The interface, as the calling thread sees it.
        interface: String,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// The kernel is too old.
    #[error("the kernel is {release}, and the programs need Linux 5.15 or newer")]
    OldKernel {
        /// Its release, as `uname -r` has it.
        release: String,
    },
    /// The kernel lacks something that there is no way without.
    #[error(
        "the kernel {release} has no {feature}, which the programs need: choose one that is built with it"
    )]
    Lacks {
        /// Its release, as `uname -r` has it.
        release: String,
        /// What it lacks.
        feature: Feature,
    },
    /// A pinned link cannot be pointed at this process's program.
    #[error("cannot replace program {program} of the pinned link {path}")]
    Replace {
        /// The program.
        program: &'static str,
        /// The link.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The link of a program cannot be kept.
    #[error("cannot keep the link of program {program}")]
    Link {
        /// The program.
        program: &'static str,
        /// The kernel's answer.
        source: LinkError,
    },
    /// A pin cannot be made.
    #[error("cannot pin {path}: is it on a bpf filesystem?")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The kernel's answer.
        source: PinError,
    },
    /// The folder of the pins cannot be made, read or deleted.
    #[error("cannot {action} {path}")]
    Folder {
        /// What was tried, a verb.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map cannot be read.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Why a map was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// There is no room for another entry.
    #[error("the map {map} is full with {size} entries: raise its size, which takes new pins")]
    Full {
        /// The map.
        map: &'static str,
        /// How many entries it may have.
        size: u32,
    },
    /// An array has no such entry.
    #[error("the map {map} has entries 1 to {last}, and no {index}")]
    NoSuchEntry {
        /// The map.
        map: &'static str,
        /// What was asked for.
        index: u32,
        /// The last one.
        last: u32,
    },
    /// It cannot be waited for.
    #[error("cannot wait for the map {map}")]
    Wait {
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot use the map {map}")]
    Kernel {
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        source: aya::maps::MapError,
    },
}

impl MapError {
    /// What the kernel said when an entry was written, with a full map told from the rest.
    pub(crate) fn writing(map: &'static str, size: u32, source: aya::maps::MapError) -> Self {
        match errno(&source) {
            // A hash says E2BIG, a trie ENOSPC.
            Some(libc::E2BIG | libc::ENOSPC) => Self::Full { map, size },
            _ => Self::Kernel { map, source },
        }
    }

    /// What the kernel said when an entry was read.
    pub(crate) fn reading(map: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |source| Self::Kernel { map, source }
    }
}

/// The kernel's error number behind an error of aya's.
pub(crate) fn errno(error: &aya::maps::MapError) -> Option<i32> {
    match error {
        aya::maps::MapError::SyscallError(error) => error.io_error.raw_os_error(),
        aya::maps::MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

//! The programs without a node, for tests and measurements: attached to nothing, pinned nowhere, run by the kernel on
//! frames of the caller's making (`BPF_PROG_TEST_RUN`).
//!
//! Such a run is the kernel's own: verified and compiled programs, real maps and helpers. What it leaves out is what
//! comes after the program: a redirected packet goes nowhere, and one in a tunnel has no tunnel key.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions};
use landbridge_bpf_maps::{
    Address, ConnectionEntry, ConnectionKey, MasqueradeEntry, MasqueradeKey, NodeConfig, Step,
};

use crate::datapath;
use crate::error::DatapathError;
use crate::events::Events;
use crate::hooks;
use crate::link;
use crate::object::Build;
use crate::shape::{CONNECTIONS, MASQUERADE};
use crate::sizes::MapSizes;
use crate::steps;
use crate::tables::Tables;

/// The programs with maps of their own.
pub struct Trial {
    object: Ebpf,
    /// The maps.
    pub tables: Tables,
    /// What the programs tell.
    pub events: Events,
}

/// A frame as a program meets it.
#[derive(Clone, Copy, Debug)]
pub struct TrialPacket<'a> {
    /// The frame with its Ethernet header, at least 14 bytes, which is as short as the kernel runs a program on.
    pub frame: &'a [u8],
    /// Index of the interface that the program is on, one of the calling thread's network namespace.
    pub interface: u32,
    /// Index of the interface that the frame arrived through, any number; 0 for one of the node's own.
    pub arrival_interface: u32,
    /// The mark that someone before gave it.
    pub mark: u32,
    /// The identity and the underlay address of the tunnel that it came out of. Only [`Build::Trial`] looks at it.
    pub tunnel: Option<(u32, Address)>,
}

impl<'a> TrialPacket<'a> {
    /// A frame that the node itself made, at the loopback.
    pub fn new(frame: &'a [u8]) -> Self {
        Self { frame, interface: 1, arrival_interface: 0, mark: 0, tunnel: None }
    }
}

/// What a program makes of a frame.
#[derive(Clone, Debug)]
pub struct TrialResult {
    /// What is to happen to the frame.
    pub action: TrialAction,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// The mark as the program left it.
    pub mark: u32,
    /// How long one run took, the mean of all.
    pub duration: Duration,
}

/// A map that forgets nothing, so that it can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// `CONNECTIONS`.
    Connections,
    /// `MASQUERADE`.
    Masquerade,
}

/// What a program says is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialAction {
    /// It goes on, to the next program or to the stack.
    Pass,
    /// It is gone.
    Drop,
    /// It goes to another interface.
    Redirect,
    /// Something that these programs never say.
    Other(i32),
}

/// The first fields of the kernel's `struct __sk_buff` are words of four bytes; these are the places of some.
mod field {
    pub(super) const MARK: usize = 2;
    pub(super) const ARRIVAL_INTERFACE: usize = 9;
    pub(super) const INTERFACE: usize = 10;
    /// The control block, five words.
    pub(super) const TUNNEL_IDENTITY: usize = 12;
    /// How many are told.
    pub(super) const COUNT: usize = 17;
}
/// Bytes that are more than the kernel's `struct __sk_buff` has.
const CONTEXT_ROOM: usize = 512;
/// How much longer a program may make a frame.
const FRAME_ROOM: usize = 256;

impl Trial {
    /// Loads the programs with maps of these sizes.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn load(build: Build, config: NodeConfig, sizes: &MapSizes) -> Result<Self, DatapathError> {
        Self::of(datapath::load(build, &[], config, sizes)?, sizes)
    }

    fn of(mut object: Ebpf, sizes: &MapSizes) -> Result<Self, DatapathError> {
        hooks::load_programs(&mut object)?;
        steps::connect(&mut object)?;
        let tables = Tables::take(&mut object, sizes)?.ok_or(DatapathError::Missing("empty SERVICES"))?;
        let events = Events::take(&mut object)?;
        Ok(Self { object, tables, events })
    }

    /// Loads the released programs with a map that forgets nothing, and has room for `entries`. It is pinned in `folder`, on a
    /// bpf filesystem, for as long as this takes.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn load_with_scarce(
        config: NodeConfig,
        sizes: &MapSizes,
        folder: &Path,
        (scarce, entries): (Scarce, u32),
    ) -> Result<Self, DatapathError> {
        let name = match scarce {
            Scarce::Connections => CONNECTIONS,
            Scarce::Masquerade => MASQUERADE,
        };
        let path = folder.join(name);
        let failed = |source| DatapathError::Folder { action: "pin a map at", path: path.clone(), source };
        match scarce {
            Scarce::Connections => link::make_hash::<ConnectionKey, ConnectionEntry>(&path, entries),
            Scarce::Masquerade => link::make_hash::<MasqueradeKey, MasqueradeEntry>(&path, entries),
        }
        .map_err(failed)?;
        let loaded = datapath::load(Build::Released, &[(name, &path)], config, sizes);
        fs::remove_file(&path).map_err(failed)?;
        Self::of(loaded?, sizes)
    }

    /// Takes a program away that others go on with.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn disconnect(&mut self, step: Step) -> Result<(), DatapathError> {
        steps::disconnect(&mut self.object, step)
    }

    /// Runs one of the programs of interfaces on a frame.
    ///
    /// # Errors
    /// [`DatapathError::Missing`] if there is no such program, [`DatapathError::Load`] if the kernel does not take the frame.
    pub fn run(&self, program: &'static str, packet: &TrialPacket<'_>) -> Result<TrialResult, DatapathError> {
        self.run_repeatedly(program, packet, 1)
    }

    /// Runs a program `count` times, each time on what the run before left of the frame.
    ///
    /// # Errors
    /// As [`Trial::run`].
    pub fn run_repeatedly(
        &self,
        program: &'static str,
        packet: &TrialPacket<'_>,
        count: u32,
    ) -> Result<TrialResult, DatapathError> {
        let loaded: &SchedClassifier = match self.object.program(program) {
            Some(Program::SchedClassifier(loaded)) => loaded,
            _ => return Err(DatapathError::Missing(program)),
        };
        let mut words = [0u32; field::COUNT];
        words[field::MARK] = packet.mark;
        words[field::ARRIVAL_INTERFACE] = packet.arrival_interface;
        words[field::INTERFACE] = packet.interface;
        if let Some((identity, address)) = packet.tunnel {
            words[field::TUNNEL_IDENTITY] = identity | 1 << 31;
            let (address, _) = address.0.as_chunks::<4>();
            for (word, bytes) in words[field::TUNNEL_IDENTITY + 1..].iter_mut().zip(address) {
                *word = u32::from_ne_bytes(*bytes);
            }
        }
        let context: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut context_after = [0; CONTEXT_ROOM];
        let mut frame = vec![0; packet.frame.len() + FRAME_ROOM];
        let result = loaded
            .test_run(TestRunOptions {
                data_in: Some(packet.frame),
                data_out: Some(&mut frame),
                ctx_in: Some(&context),
                ctx_out: Some(&mut context_after),
                repeat: count,
                ..TestRunOptions::default()
            })
            .map_err(|source: ProgramError| DatapathError::Load { program, source })?;
        frame.truncate(result.data_size_out as usize);
        let (words, _) = context_after.as_chunks::<4>();
        Ok(TrialResult {
            action: TrialAction::of(result.return_value),
            frame,
            mark: u32::from_ne_bytes(words[field::MARK]),
            duration: result.duration,
        })
    }
}

impl TrialAction {
    /// Reads a return value (`TC_ACT_*` of `linux/pkt_cls.h`).
    fn of(value: u32) -> Self {
        match value.cast_signed() {
            -1 => Self::Pass,
            2 => Self::Drop,
            7 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

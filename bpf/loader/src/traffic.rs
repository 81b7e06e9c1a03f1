//! Counts the packets of an interface.

use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapError, PerCpuArray};
use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfError, EbpfLoader};
use landbridge_bpf_maps::{Direction, Reason, TrafficCount, metrics_index};

use crate::OBJECT;

/// The map that both programs count in.
const METRICS: &str = "METRICS";
/// Lines of the verifier's log that an error shows: its verdict comes last.
const VERIFIER_LINES: usize = 12;

/// Why a program does not run, or what it counted cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The maps cannot be made.
    #[error("cannot load the maps of the datapath")]
    Object(#[source] EbpfError),
    /// The object lacks something that this crate expects: the two were not built together.
    #[error("the embedded object has no {0}: build it again from bpf/programs of this source tree")]
    Missing(&'static str),
    /// The kernel's verifier refused a program.
    #[error("the kernel refuses program {program}, last said:\n{log}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A program cannot be loaded or attached.
    #[error(
        "cannot attach program {program} to interface {interface:?} (this takes tcx, of Linux 6.6 or newer)"
    )]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface, as the calling thread sees it.
        interface: String,
        /// The kernel's answer.
        source: ProgramError,
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
    /// The folder of the pins cannot be made.
    #[error("cannot create {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map cannot be read.
    #[error("cannot read the map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        source: MapError,
    },
}

/// Two programs that count what arrives at an interface and what leaves it.
///
/// Everything is pinned: the counting goes on when this is dropped or the process ends, until the pins are
/// deleted.
#[derive(Debug)]
pub struct TrafficCounter {
    object: Ebpf,
    pins: PathBuf,
}

impl TrafficCounter {
    /// Loads the programs, with their map pinned in the folder `pins` of a bpf filesystem. A map that is pinned
    /// there already is taken over with its counts.
    ///
    /// # Errors
    /// [`LoadError::Folder`] or [`LoadError::Object`].
    pub fn load(pins: &Path) -> Result<Self, LoadError> {
        std::fs::create_dir_all(pins)
            .map_err(|source| LoadError::Folder { path: pins.to_owned(), source })?;
        let mut loader = EbpfLoader::new();
        loader.map_pin_path(METRICS, pins.join(METRICS));
        let object = loader.load(OBJECT).map_err(LoadError::Object)?;
        Ok(Self { object, pins: pins.to_owned() })
    }

    /// Counts what passes `interface` from now on. Where a process before this one did so, its programs are replaced
    /// in one step by this one's.
    ///
    /// # Errors
    /// [`LoadError::Refused`], [`LoadError::Attach`], [`LoadError::Link`] or [`LoadError::Pin`]; what the call attached
    /// until then is detached again.
    pub fn attach(&mut self, interface: &str) -> Result<(), LoadError> {
        let ingress = self.attach_one("count_ingress", interface, TcAttachType::Ingress)?;
        let egress = self.attach_one("count_egress", interface, TcAttachType::Egress)?;
        let pinned = ingress.map_or(Ok(None), |(link, path)| pin(link, path).map(Some))?;
        if let Some((link, path)) = egress {
            let outcome = pin(link, path);
            if let (Err(_), Some(ingress)) = (&outcome, pinned) {
                // Without its pin the link goes with this value.
                let _ = ingress.unpin();
            }
            outcome?;
        }
        Ok(())
    }

    /// Returns the new link and where to pin it, or nothing if a pinned one was pointed at the program.
    fn attach_one(
        &mut self,
        program: &'static str,
        interface: &str,
        hook: TcAttachType,
    ) -> Result<Option<(FdLink, PathBuf)>, LoadError> {
        let attach = |source| LoadError::Attach { program, interface: interface.to_owned(), source };
        let keep = |source| LoadError::Link { program, source };
        let path = self.pins.join(format!("{interface}-{program}"));
        let classifier = self.object.program_mut(program).ok_or(LoadError::Missing(program))?;
        let classifier: &mut SchedClassifier = classifier.try_into().map_err(attach)?;
        match classifier.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(ProgramError::LoadError { verifier_log, .. }) => {
                let log = last_lines(&verifier_log.to_string(), VERIFIER_LINES);
                return Err(LoadError::Refused { program, log });
            }
            Err(source) => return Err(attach(source)),
        }
        if path.exists() {
            let pinned = PinnedLink::from_pin(&path).map_err(keep)?;
            let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(keep)?;
            classifier.attach_to_link(link).map_err(attach)?;
            return Ok(None);
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = classifier.attach_with_options(interface, hook, options).map_err(attach)?;
        let link = classifier.take_link(id).map_err(attach)?;
        Ok(Some((link.try_into().map_err(keep)?, path)))
    }

    /// What has passed all interfaces in a direction since the map was made, over all CPUs.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn count(&self, direction: Direction) -> Result<TrafficCount, LoadError> {
        let unreadable = |source| LoadError::Map { map: METRICS, source };
        let map = self.object.map(METRICS).ok_or(LoadError::Missing(METRICS))?;
        let map = PerCpuArray::<_, TrafficCount>::try_from(map).map_err(unreadable)?;
        let counts = map.get(&metrics_index(Reason::FORWARDED, direction), 0).map_err(unreadable)?;
        Ok(counts.iter().fold(TrafficCount::default(), |sum, count| TrafficCount {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        }))
    }
}

fn pin(link: FdLink, path: PathBuf) -> Result<PinnedLink, LoadError> {
    link.pin(&path).map_err(|source| LoadError::Pin { path, source })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

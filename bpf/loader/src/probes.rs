//! What the running kernel offers, and what is done without what it lacks.

use std::fmt;

use aya::maps::MapType;
use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

use crate::error::DatapathError;

/// The oldest kernel that the programs are made for, a long-term release.
pub(crate) const OLDEST: (u32, u32) = (5, 15);
/// An interface that each network namespace has.
const LOOPBACK: &str = "lo";

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Links that hold programs at interfaces (Linux 6.6).
    TcxLinks,
    /// Programs of sockets may choose the error that an application gets (Linux 5.18).
    SocketErrors,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuffer,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TcxLinks, Self::SocketErrors, Self::RingBuffer];

    /// What is done where a kernel lacks it; nothing if there is no way without.
    pub const fn fallback(self) -> Option<&'static str> {
        match self {
            Self::TcxLinks => Some("programs are attached as filters of a clsact qdisc"),
            Self::SocketErrors => {
                Some("calling a service without backends fails with EPERM, not ECONNREFUSED")
            }
            Self::RingBuffer => None,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcxLinks => "tcx links",
            Self::SocketErrors => "errors chosen by programs of sockets",
            Self::RingBuffer => "ring buffers",
        })
    }
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as `uname -r` has it.
    pub release: String,
    /// What it lacks that there is a way without.
    pub lacks: Vec<Feature>,
}

impl Kernel {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`DatapathError::OldKernel`] and [`DatapathError::Lacks`] if it cannot run the programs.
    pub fn probe() -> Result<Self, DatapathError> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::with(release, offers)
    }

    /// A kernel of this release that offers some of the features.
    fn with(release: String, offers: impl Fn(Feature) -> bool) -> Result<Self, DatapathError> {
        // A release that is none, of someone's own kernel, may be new enough.
        if version(&release).is_some_and(|version| version < OLDEST) {
            return Err(DatapathError::OldKernel { release });
        }
        let lacks: Vec<Feature> = Feature::ALL.into_iter().filter(|feature| !offers(*feature)).collect();
        match lacks.iter().find(|feature| feature.fallback().is_none()) {
            Some(feature) => Err(DatapathError::Lacks { release, feature: *feature }),
            None => Ok(Self { release, lacks }),
        }
    }

    /// Whether it has something.
    pub fn has(&self, feature: Feature) -> bool {
        !self.lacks.contains(&feature)
    }
}

fn offers(feature: Feature) -> bool {
    match feature {
        Feature::TcxLinks => SchedClassifier::query_tcx(LOOPBACK, TcAttachType::Ingress).is_ok(),
        Feature::SocketErrors => {
            is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
        }
        Feature::RingBuffer => is_map_supported(MapType::RingBuf).unwrap_or(false),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_by_name() {
        for release in ["5.14.21-150500.55-default", "5.4.0", "4.18.0-553.el8.x86_64", "5.10.0-30-amd64"] {
            let error = Kernel::with(release.to_owned(), |_| true).unwrap_err().to_string();
            assert!(error.contains(release) && error.contains("5.15"), "{error}");
        }
        for release in ["5.15.0", "5.15.0-113-generic", "6.1.0-rc1", "6.18.44", "10.0", "unknown"] {
            assert_eq!(Kernel::with(release.to_owned(), |_| true).unwrap().lacks, []);
        }
    }

    #[test]
    fn what_is_lacking_has_a_way_without_or_is_named() {
        let kernel = Kernel::with("5.15.0".to_owned(), |feature| feature != Feature::TcxLinks).unwrap();
        assert_eq!(kernel.lacks, [Feature::TcxLinks]);
        assert!(!kernel.has(Feature::TcxLinks) && kernel.has(Feature::RingBuffer));
        let error = Kernel::with("6.6.0".to_owned(), |feature| feature != Feature::RingBuffer).unwrap_err();
        assert!(error.to_string().contains("ring buffers"), "{error}");
    }
}

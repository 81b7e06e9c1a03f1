//! The compiled kernel side.

use aya::EbpfLoader;
#[cfg(feature = "trial")]
use landbridge_bpf_maps::Planted;

/// Aligned as the ELF parser wants it.
static RELEASED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/landbridge.o"));
#[cfg(feature = "trial")]
static TRIAL: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/landbridge-trial.o"));

/// Says what is planted: nothing, or the [`Planted`] of this number.
#[cfg(feature = "trial")]
const PLANTED: &str = "PLANTED";
#[cfg(feature = "trial")]
static NUMBERS: [u32; 7] = [0, 1, 2, 3, 4, 5, 6];

/// Which of the compiled objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "trial"), expect(unreachable_pub, reason = "only tests have a choice"))]
pub enum Build {
    /// The one that nodes run.
    Released,
    /// The one that can be told of tunnels, and into which a bug or a fault can be planted.
    #[cfg(feature = "trial")]
    Trial(Option<Planted>),
}

impl Build {
    /// What a loader has to load, and says of its constants.
    #[cfg_attr(
        not(feature = "trial"),
        expect(unused_variables, reason = "what nodes run has one constant only")
    )]
    pub(crate) fn prepare(self, loader: &mut EbpfLoader<'_>) -> &'static [u8] {
        match self {
            Self::Released => RELEASED,
            #[cfg(feature = "trial")]
            Self::Trial(planted) => {
                loader.override_global(PLANTED, &NUMBERS[planted.map_or(0, |what| what as usize)], true);
                TRIAL
            }
        }
    }
}

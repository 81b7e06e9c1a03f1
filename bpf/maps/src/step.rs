//! Programs that others go on with.

/// Position in the `STEPS` map, a `BPF_MAP_TYPE_PROG_ARRAY`: what only some packets need is a program of its own, so that
/// the verifier does not follow it once more in each program that leads there.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A pod speaks to a service: find the backend.
    ToService = 0,
    /// The packet is one to a backend by now: let it pass, and send it on.
    ToBackend = 1,
    /// The pod that it is for called its sender by the name of a service: give it that name, then the packet.
    AsService = 2,
    /// The pod that it is for is who sent it: hide that, and give it the packet.
    HideClient = 3,
    /// A pod speaks to its link alone.
    Hear = 4,
}

impl Step {
    /// All of them, in the order of their positions.
    pub const ALL: [Self; 5] =
        [Self::ToService, Self::ToBackend, Self::AsService, Self::HideClient, Self::Hear];

    /// The name of the program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::ToService => "to_service",
            Self::ToBackend => "to_backend",
            Self::AsService => "as_service",
            Self::HideClient => "hide_client",
            Self::Hear => "hear_pod",
        }
    }
}

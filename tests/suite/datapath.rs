//! The datapath in the kernel, whole: programs, maps and loader between real hosts. The tests play the agent.

pub(super) mod fixture;
mod maps;
mod overlay;
mod policy;
mod services;
mod takeover;

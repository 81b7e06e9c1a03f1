//! The datapath in the kernel, whole: programs, maps and loader between real hosts. The tests play the agent.

mod connections;
mod events;
pub(super) mod fixture;
mod fuzz;
mod maps;
mod older_way;
mod overlay;
mod packets;
mod planted;
mod policy;
mod reasons;
mod services;
mod takeover;
mod trial;
mod versions;

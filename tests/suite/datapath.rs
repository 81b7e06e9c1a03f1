//! The datapath in the kernel, whole: programs, maps and loader between real hosts. The tests play the agent.

mod connections;
mod direct;
mod events;
pub(super) mod fixture;
mod fragments;
mod fuzz;
mod ipv6;
mod maps;
mod masquerade;
mod mtu;
mod older_way;
mod overlay;
mod packet_services;
mod packets;
mod planted;
mod policy;
mod reasons;
mod services;
mod takeover;
mod trial;
mod versions;

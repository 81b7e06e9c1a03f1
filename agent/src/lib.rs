//! The agent of a node, and the CNI plugin.
//!
//! ```text
//! store ── feeds ──► reconciler ──► BPF maps, routes        kubelet ──► landbridge-cni
//!                      ▲  │ ▲                                              │ Unix socket
//!            health ───┘  │ └──────────────── node_api ◄───────────────────┘
//!                         └──► report ──► store
//! ```
//!
//! One task writes maps and routes (`reconciler`); what they should hold is decided in `agent/mesh`, which is pure. What is
//! in the kernel stays there when the agent ends.

pub mod agent;
pub mod cni;
pub mod config;
pub mod telemetry;

mod endpoint;
mod error_chain;
mod feeds;
mod health;
mod icmp;
mod netlink;
mod node_api;
mod node_network;
mod pod_cidr;
mod preflight;
mod reconciler;
mod report;
mod routes;
mod sockets;
mod state_dir;
mod sysctl;

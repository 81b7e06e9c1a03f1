//! One per cluster: embeds the store, publishes the cluster, mirrors its peers.
//!
//! ```text
//!  manifests ─ source ─► objects ─ publish ─► own store ◄─ mirror ─ peers ◄─ stores of other clusters
//!                                              ▲    │
//!                        config, admin ────────┘    └─► agents, by the rights of `users`
//! ```
//!
//! `serve` puts the parts together, in the order in which they need each other.

pub mod admin;
pub mod config;
pub mod data_dir;
pub mod identities;
pub mod objects;
pub mod peers;
pub mod pki;
pub mod publish;
pub mod serve;
pub mod source;
pub mod store;
pub mod users;

//! Several members in one process, on real files and sockets: what one answered, all know, whoever is gone meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod faults;
mod harness;
mod members;
#[path = "../api/pki.rs"]
mod pki;
mod replication;
mod tls;

//! From manifests to records, and the publisher at a real etcd.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod diff;
mod fill_in;
mod golden;
mod identities;
mod policies;
mod services;
mod support;
mod takeover;

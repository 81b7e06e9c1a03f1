//! The store's API over real sockets: one suite for our store and for the etcd that others run, and what only ours has.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod auth;
mod etcdctl;
mod garbage;
mod hash;
mod health;
mod http;
mod learner;
mod listen;
mod metrics;
mod ours;
mod pki;
mod protocol;
mod shutdown;
mod store;
mod suite;
mod tls;
mod users;
mod wire;

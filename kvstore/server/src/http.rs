//! What is served on a port: gRPC, and beside it HTTP with the state of health, metrics and the API in JSON.
//!
//! ```text
//! connection ─► preface: HTTP/2 or 1 ─► requests ─┬─ application/grpc ─► Api ─► services
//!                                                 ├─ /v3/… ─► gateway: JSON ↔ messages ─► Api
//!                                                 └─ /health /livez /readyz /version /metrics
//! ```
//!
//! Invariants:
//! - A gRPC request goes to its service at once: its path is looked at, and nothing else is between.
//! - What comes through the gateway has the rights of its token, and never those of the connection's certificate.
//! - A client that is slow to say what it wants is cut off: it has a deadline for the first bytes, for the head of a request
//!   and for the body of one that is answered once.

mod authority;
mod body;
mod calls;
mod deadline;
mod gateway;
mod gzip;
mod health;
mod metrics;
mod preface;
mod process;
mod requests;
mod router;
mod serve;

pub(crate) use router::Router;
pub(crate) use serve::serve;

/// The etcd that this store behaves as. Clients parse it to see what they may use: from 3.5.13 on, that answers to progress
/// requests can be relied on.
pub(crate) const ETCD_VERSION: &str = "3.5.21";
/// The API that all members of such a cluster have.
pub(crate) const CLUSTER_VERSION: &str = "3.5.0";

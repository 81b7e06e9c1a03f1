//! etcd's API over the engine: each service parses, checks the user's rights, asks the engine and answers.
//!
//! ```text
//! connection (its user) ─► Api ─► kv · lease · watch · maintenance · cluster · auth ─► Engine
//!                       hasleader  convert: protocol buffers ↔ store's types
//! ```
//!
//! Invariants:
//! - Rights are checked before anything is proposed, with the rules of that moment.
//! - The engine's state is looked at in short reads that are never held over an await.
//! - Codes and texts of errors are etcd's: its clients compare the texts.

mod api;
mod auth;
mod cluster;
mod convert;
mod election;
mod key_value;
mod kv;
mod learner;
mod lease;
mod lock;
mod maintenance;
mod queue;
mod range_stream;
mod service;
mod state;
mod status;
mod unary;
mod watch;

pub(crate) use api::{Api, as_etcd, is_direct};
pub use key_value::KeyValueMessage;
pub use service::ServiceSettings;
pub(crate) use service::{Peer, Service};
pub(crate) use status::{message_larger_than, too_many_requests, unknown_method};
pub use watch::WatchCounters;

/// etcd's messages and services.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated; its documentation is proto/etcd"
)]
pub mod proto {
    /// Requests, responses and services.
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
    /// Keys and events.
    pub mod mvccpb {
        pub use super::super::KeyValueMessage as KeyValue;
        tonic::include_proto!("mvccpb");
    }
    /// Locks.
    pub mod v3lockpb {
        tonic::include_proto!("v3lockpb");
    }
    /// Elections.
    pub mod v3electionpb {
        tonic::include_proto!("v3electionpb");
    }
    /// Users and roles.
    pub mod authpb {
        tonic::include_proto!("authpb");
    }
    /// A `FileDescriptorSet` of all of the API, encoded.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.descriptors"));
}

//! A client of the etcd v3 API: single requests, list then watch, leases, over connections that repair themselves.
//!
//! ```text
//! KvClient ──► requests ──┐
//! Feed     ──► task ──────┼──► Connections: one endpoint at a time, the next one after a failure ──► etcd
//! LeaseKeeper ► task ─────┤
//! KeptKeys ─► task ───────┘
//!              └─ decides by FeedState, Renewal, Backoff: plain state machines without clock, socket or randomness
//! ```
//!
//! Invariants:
//! - Nothing waits for ever: each request has a deadline, and a stream that is silent is asked and then given up.
//! - A request that may have been applied is never sent a second time, unless it only reads.
//! - What a [`Feed`] tells, folded in order, is the content of the store under its prefix: nothing twice, nothing
//!   missed, whatever happens to connections and history in between.
//! - TLS trusts the given CA file and nothing else.

mod apply;
mod backoff;
mod call;
mod client;
mod connection;
mod error;
mod feed;
mod kept;
mod key_range;
mod key_value;
mod lease;
mod options;
mod page;
mod request;

pub use apply::Fence;
pub use call::Call;
pub use client::KvClient;
pub use error::ClientError;
pub use feed::{Feed, FeedEvent};
pub use kept::KeptKeys;
pub use key_value::{Creation, KeyValue, Listing, Probe, Write};
pub use lease::LeaseKeeper;
pub use options::{ClientOptions, OptionsError, TlsFiles};

//! The state machine behind the store's etcd v3 API: what each request does to keys, leases and history.
//!
//! ```text
//! requests in log order ─► Store ── keys: versions by revision ─► Range
//!                            │  └── leases: keys by lease
//!                            └── history: changes by revision ──► Watcher
//! ```
//!
//! Invariants:
//! - The same requests in the same order make the same store on every member: no clock, no randomness, no I/O, and
//!   iteration is ordered. Expiry of leases is a request like any other, made by the leader, whose [`LeaseClock`] is
//!   the one part that is not replicated. Time is an argument there.
//! - A request that fails changes nothing.
//! - Every revision from the compacted one to the current one has its changes in the history, without a gap.
//! - A version of a key is one allocation, in the form that goes to clients, however many responses and watchers speak of it.
//! - A clone of a [`Store`] costs nothing and stays as it was: all of it is in persistent trees (`tree`). Whoever has to look
//!   at much of it does so on a clone.
//! - What a compaction forgot is not seen, however much of it is still in memory ([`Store::compact_step`]).
//!
//! Semantics and error texts are etcd's (its API reference, and `server/storage/mvcc`, `server/etcdserver/txn`).

pub mod auth;
mod compact;
mod error;
mod export;
mod hash;
mod history;
mod key_range;
mod key_value;
mod lease;
mod lease_clock;
mod range;
mod store;
mod tree;
mod txn;
mod versions;
mod watch;
mod watch_index;

pub use error::{RangeError, StoreError};
pub use export::{BuildError, StoreBuilder, StorePart};
pub use hash::HashKv;
pub use history::{Changes, Event, Revisions};
pub use key_range::KeyRange;
pub use key_value::{Fields, InvalidKeyValue, KeyValue};
pub use lease::{InvalidLeaseId, LeaseId};
pub use lease_clock::{LeaseClock, granted_ttl_seconds};
pub use range::{RangeRequest, RangeResponse, SortOrder, SortTarget};
pub use store::{DeleteRequest, DeleteResponse, PutRequest, PutResponse, Store};
pub use txn::{
    Compare, CompareOperator, CompareTarget, Op, OpResponse, OpResult, TxnLimits, TxnRequest, TxnResponse,
};
pub use watch::{WatchBatch, WatchFilter, WatchStep, Watcher};
pub use watch_index::{WatchIndex, WatcherId};

//! Publishes a cluster: keeps the records in the store equal to what its objects say.
//!
//! ```text
//! Objects ─ fill_in ─► complete ─ records ─► desired ┐
//!                         │                          ├─ diff ─► writes ─► store
//!            numbers ◄────┘        store's content ──┘
//! ```
//!
//! - One replica publishes: the one that holds the lock, a key with a lease. One that loses its lease stops writing at
//!   once; another one takes over within 5 seconds.
//! - The store's content decides: whoever takes the lock reads it first, and a restart that changes nothing writes
//!   nothing. Every minute everything is compared again, so that what somebody else changed is repaired.
//! - A reader never sees an address before the identity that it has, nor a canary before the records that it stands for,
//!   and a record that moves is never gone in between.
//! - Only keys of [`OwnKeys`] are ever deleted.

mod diff;
mod lock;
mod policies;
mod publisher;
mod records;
mod services;
mod session;
mod state;

pub use diff::{OwnKeys, Stored, Withhold, diff, own_keys};
pub use policies::{normalise, policy_records};
pub use publisher::{Publisher, PublisherHandle, Timing};
pub use records::{ClusterFacts, Published, canaries, records, wanted_identities};
pub use state::{NodeSummary, PublisherState, ServiceSummary};

//! Security identities: the labels that a pod is known by, and the number that each set of them has.
//!
//! ```text
//! pod ─ labels_of ─► Labels ─┐
//!                            ├─ Allocation::missing ─► numbers to create ─ store ─► Allocation
//! store's identity records ──┘                                                   └─ forget_unused ─► numbers to delete
//! ```
//!
//! - The records in the store are the allocation: a publisher that takes over reads them and goes on.
//! - A number stands for one set of labels for as long as it is known, and is free again only after it was unused for
//!   [`KEEP_UNUSED`].
//! - A pod cannot choose the labels that say where it is from: they are set here, over whatever its own say.

mod allocation;
mod labels;

pub use allocation::{Allocation, Exhausted, KEEP_UNUSED};
pub use labels::{NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX, SERVICE_ACCOUNT_LABEL, labels_of};

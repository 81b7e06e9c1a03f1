//! Decisions of the datapath, the same in the kernel and in host tests.
//!
//! ```text
//!  bytes ─► known_flow::read   (judged a moment ago?)
//!  bytes ─► packet::parse ─► Flow ─┬─► sender::check       (from the tunnel: may the sender say so?)
//!                       │          ├─► owner::owner_of     (who is the other side?)
//!                       │          ├─► admission::admit ─┬─► a reply of a connection that was admitted: passes
//!                       │          │    └─ fragment      └─► policy::decide ─► remembered as a connection
//!                       │          └─► masquerade          (to the world and back: under which port of the node?)
//!                       ├─► translation              (to a service: who serves this connection?)
//!                       └─► neighbour::judge               (what a pod says to its link)
//!  service ─► selection::select ─► affinity, table (maglev), place ─► backend
//!  notice: what the node answers itself
//! ```
//!
//! Everything here is generic over lookups: kernel maps in the programs, ordinary collections in tests. No panics, no
//! recursion and no unbounded loop, since the kernel's verifier refuses them.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "what is a call to the kernel's verifier is decided here, not by the compiler"
)]

#[cfg(any(test, feature = "tables"))]
extern crate std;

pub mod admission;
pub mod budget;
pub mod fragment;
pub mod hash;
pub mod known_flow;
pub mod maglev;
pub mod masquerade;
pub mod neighbour;
pub mod notice;
pub mod owner;
pub mod packet;
pub mod policy;
pub mod selection;
pub mod sender;
#[cfg(any(test, feature = "tables"))]
pub mod tables;
pub mod translation;

pub use admission::{Connections, Passage, admit};
pub use fragment::Fragments;
pub use masquerade::Masquerades;
pub use owner::{Owners, owner_of};
pub use packet::{Flow, Fragment, Packet, Scope, parse};
pub use policy::{Decision, Question, Rules, decide, of_ranges};
pub use translation::{Offers, Translations};

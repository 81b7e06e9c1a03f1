//! The folder of manifests as a source of objects.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kinds;
mod policies;
mod problems;
mod support;
mod watching;

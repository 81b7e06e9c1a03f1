//! The mesh as agents use it: keys and values in, maps out.
#![expect(clippy::unwrap_used, reason = "a failure in a helper of a test is a failure of the test")]

mod claims;
mod health;
mod maps;
mod order;
mod policy;
mod records;
mod services;
mod writes;

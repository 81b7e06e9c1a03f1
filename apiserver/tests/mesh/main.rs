//! Apiservers as a whole: two of them on loopback, connected over mTLS, and the program on the command line.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod connecting;
mod outages;
mod program;
mod refusals;
mod rights;
mod takeover;

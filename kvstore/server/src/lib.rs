//! The store's server. So far: the log that makes writes durable.

pub mod wal;

//! The store's server: replicated commands, durable in a log and in snapshots, behind etcd's API.

mod accept;
pub mod access;
pub mod auth_token;
mod compaction;
mod connection;
pub mod engine;
mod error_chain;
pub mod grpc;
mod held;
mod http;
mod leader;
mod listen;
pub mod planted;
pub mod platform;
mod quota;
mod server;
mod tls;
mod tls_settings;
mod transport;
pub mod wal;

pub use access::{Access, AccessRules, AuthOptions, Grant};
pub use auth_token::{AuthToken, AuthTokenError};
pub use compaction::CompactionMode;
pub use engine::backup;
pub use grpc::ServiceSettings;
pub use listen::{InvalidListenUrl, ListenAddress, ListenUrl};
pub use server::{Server, ServerOptions, StartError};
pub use tls::{TlsError, TlsFiles};
pub use tls_settings::{
    ClientCertificates, InvalidTlsSetting, ServerTls, TlsVersion, TlsVersions, cipher_suites,
    parse_cipher_suites,
};

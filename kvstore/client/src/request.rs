//! Sends a request over the current connection, within a deadline, and again where that is harmless.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::call::Call;
use crate::connection::{Connection, Connections};
use crate::error::ClientError;

/// Whether a request may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It changes nothing, so it may.
    Reads,
    /// It may not, except where it surely never left.
    Writes,
}

/// Why an answer is none.
pub(crate) enum Fault {
    Library(etcd_client::Error),
    Malformed(&'static str),
}

impl From<etcd_client::Error> for Fault {
    fn from(error: etcd_client::Error) -> Self {
        Self::Library(error)
    }
}

impl Fault {
    pub(crate) fn during(self, call: Call) -> ClientError {
        match self {
            Self::Library(error) => ClientError::from_library(call, error),
            Self::Malformed(what) => ClientError::Malformed { call, what },
        }
    }
}

/// What all parts of a client share.
pub(crate) struct Requests {
    pub(crate) connections: Connections,
    pub(crate) timeout: Duration,
    skipped_keys: AtomicU64,
}

impl Requests {
    pub(crate) fn new(connections: Connections, timeout: Duration) -> Self {
        Self { connections, timeout, skipped_keys: AtomicU64::new(0) }
    }

    /// Sends it, at other endpoints too if that can help and harms nothing, until the request timeout.
    pub(crate) async fn call<T, F, Fut>(
        &self,
        operation: &'static str,
        key: &str,
        effect: Effect,
        send: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let deadline = Instant::now() + self.timeout;
        // A connection may have broken unnoticed, so even a single endpoint is worth a second try.
        for _ in 1..self.connections.endpoints().len().max(2) {
            match self.once(operation, key, deadline, &send).await {
                Err(error) if may_repeat(&error, effect) && Instant::now() < deadline => {}
                done => return done.map(|(answer, _)| answer),
            }
        }
        self.once(operation, key, deadline, &send).await.map(|(answer, _)| answer)
    }

    /// Sends it once, and says over which connection.
    pub(crate) async fn once<T, F, Fut>(
        &self,
        operation: &'static str,
        key: &str,
        deadline: Instant,
        send: F,
    ) -> Result<(T, Arc<Connection>), ClientError>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let connection = timeout_at(deadline, self.connections.get(operation, key)).await;
        let Ok(connection) = connection else {
            return Err(self.connections.out_of_time(operation, key, self.timeout));
        };
        let connection = connection?;
        let call = || Call { operation, key: key.to_owned(), endpoint: connection.endpoint.clone() };
        let error = match timeout_at(deadline, send(connection.clone())).await {
            Ok(Ok(answer)) => {
                self.connections.succeeded(&connection);
                return Ok((answer, connection));
            }
            Ok(Err(fault)) => fault.during(call()),
            Err(_) => ClientError::TimedOut { call: call(), after: self.timeout },
        };
        self.note(&connection, &error);
        Err(error)
    }

    /// Lets go of the connection if the error speaks against it.
    pub(crate) fn note(&self, connection: &Connection, error: &ClientError) {
        if error.is_of_connection() {
            self.connections.failed(connection, error);
        } else {
            self.connections.succeeded(connection);
        }
    }

    /// A request that is not (or not only) about one connection.
    pub(crate) fn unsent(&self, operation: &'static str, key: &str) -> Call {
        Call { operation, key: key.to_owned(), endpoint: self.connections.endpoints().join(",") }
    }

    /// Counts keys that are not UTF-8, and says so once for all of them.
    pub(crate) fn note_skipped(&self, prefix: &str, keys: &[Vec<u8>]) {
        let Some(first) = keys.first() else { return };
        self.skipped_keys.fetch_add(keys.len() as u64, Ordering::Relaxed);
        warn!(prefix, keys = keys.len(), first = %first.escape_ascii(), "skipped keys that are not UTF-8");
    }

    pub(crate) fn skipped_keys(&self) -> u64 {
        self.skipped_keys.load(Ordering::Relaxed)
    }
}

fn may_repeat(error: &ClientError, effect: Effect) -> bool {
    match effect {
        Effect::Reads => error.is_of_connection(),
        Effect::Writes => matches!(error, ClientError::Unreachable { .. } | ClientError::TlsFile { .. }),
    }
}

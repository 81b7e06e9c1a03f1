//! The one connection that all requests of a client share, and what becomes of it when it fails.
//!
//! ```text
//! get ──► current? ──yes──► it
//!            └─no──► wait for the pace ──► read the TLS files ──► a new one, connected when first used
//! failed(number) ──► drops the current one if it still is that one, chooses the next endpoint
//! ```
//!
//! A connection is to one endpoint. Whoever still uses a dropped one goes on with it until it fails there too. The
//! transport below would reconnect by itself with the certificates it was made with, so a failure always drops it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Certificate, ConnectOptions, Identity, KvClient, LeaseClient, TlsOptions, WatchClient};
use fastrand::Rng;
use tonic::transport::Uri;

use crate::backoff::Rotation;
use crate::call::Call;
use crate::error::ClientError;
use crate::options::TlsFiles;

/// An endpoint that takes no connection within this time is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a quiet connection is checked. Servers close connections that are checked more often than every 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A connection that leaves a check unanswered for this long is broken.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A page or a batch of events holds many values of up to 1.5 MiB each; the library would refuse more than 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// One connection to one endpoint.
pub(crate) struct Connection {
    number: u64,
    pub(crate) endpoint: String,
    pub(crate) kv: KvClient,
    pub(crate) watch: WatchClient,
    pub(crate) lease: LeaseClient,
}

/// Owner of the current connection.
pub(crate) struct Connections {
    /// In the order in which they are tried.
    endpoints: Vec<String>,
    tls: Option<TlsFiles>,
    held: Mutex<Held>,
}

/// Locked for moments only.
struct Held {
    current: Option<Arc<Connection>>,
    opened: u64,
    rotation: Rotation,
    last_failure: Option<ClientError>,
    rng: Rng,
}

impl Connections {
    /// `endpoints` are checked, and at least one.
    pub(crate) fn new(mut endpoints: Vec<String>, tls: Option<TlsFiles>, mut rng: Rng) -> Self {
        rng.shuffle(&mut endpoints);
        let rotation = Rotation::new(endpoints.len());
        let held = Mutex::new(Held { current: None, opened: 0, rotation, last_failure: None, rng });
        Self { endpoints, tls, held }
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Randomness for someone else.
    pub(crate) fn fork_rng(&self) -> Rng {
        self.lock().rng.fork()
    }

    /// The current connection or a new one. Waits between rounds of failures, the caller sets the limit.
    ///
    /// # Errors
    /// [`ClientError::TlsFile`], or [`ClientError::Unreachable`] if a TLS file does not hold what it should.
    pub(crate) async fn get(
        &self,
        operation: &'static str,
        key: &str,
    ) -> Result<Arc<Connection>, ClientError> {
        loop {
            let (chosen, not_before) = {
                let held = self.lock();
                if let Some(current) = &held.current {
                    return Ok(current.clone());
                }
                (held.rotation.chosen(), held.rotation.not_before())
            };
            if let Some(not_before) = not_before.filter(|at| *at > Instant::now()) {
                tokio::time::sleep_until(not_before.into()).await;
                continue; // others waited too, and the first one has connected
            }
            let endpoint = self.endpoints[chosen].clone();
            let call = Call { operation, key: key.to_owned(), endpoint };
            let opened = self.open(&call).await;
            let mut held = self.lock();
            match opened {
                Ok(_) if held.current.is_some() || held.rotation.chosen() != chosen => {}
                Ok(mut connection) => {
                    held.opened += 1;
                    connection.number = held.opened;
                    return Ok(held.current.insert(Arc::new(connection)).clone());
                }
                Err(error) => {
                    held.note_failure(&error);
                    return Err(error);
                }
            }
        }
    }

    /// `connection` brought an answer.
    pub(crate) fn succeeded(&self, connection: &Connection) {
        let mut held = self.lock();
        if held.is_current(connection) {
            held.rotation.succeeded();
        }
    }

    /// `connection` did not serve, so the next request takes another one.
    pub(crate) fn failed(&self, connection: &Connection, error: &ClientError) {
        let mut held = self.lock();
        if held.is_current(connection) {
            held.current = None;
            held.note_failure(error);
        }
    }

    /// What to say when there was no time left to even connect.
    pub(crate) fn out_of_time(&self, operation: &'static str, key: &str, after: Duration) -> ClientError {
        let held = self.lock();
        let endpoint = self.endpoints[held.rotation.chosen()].clone();
        let call = Call { operation, key: key.to_owned(), endpoint };
        match held.last_failure.clone() {
            Some(last) => ClientError::Unreachable { call, source: Arc::new(last) },
            None => ClientError::TimedOut { call, after },
        }
    }

    async fn open(&self, call: &Call) -> Result<Connection, ClientError> {
        // A member without a leader serves stale watches for as long as it stays cut off.
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT);
        if let Some(files) = &self.tls {
            options = options.with_tls(tls_options(files, call).await?);
        }
        // No user is set, so this only builds: the connection is made when first used.
        let client = etcd_client::Client::connect([&call.endpoint], Some(options)).await;
        let client = client.map_err(|error| ClientError::from_library(call.clone(), error))?;
        Ok(Connection {
            number: 0,
            endpoint: call.endpoint.clone(),
            kv: client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES),
            watch: client.watch_client().max_decoding_message_size(MAX_MESSAGE_BYTES),
            lease: client.lease_client(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_current(&self, connection: &Connection) -> bool {
        self.current.as_ref().is_some_and(|current| current.number == connection.number)
    }

    fn note_failure(&mut self, error: &ClientError) {
        let random = self.rng.f64();
        self.rotation.failed(Instant::now(), random);
        self.last_failure = Some(error.clone());
    }
}

async fn tls_options(files: &TlsFiles, call: &Call) -> Result<TlsOptions, ClientError> {
    let read = async |path: &Path| {
        tokio::fs::read(path).await.map_err(|source| ClientError::TlsFile {
            call: call.clone(),
            path: path.to_owned(),
            source: Arc::new(source),
        })
    };
    let ca = Certificate::from_pem(read(&files.ca).await?);
    let identity = Identity::from_pem(read(&files.certificate).await?, read(&files.key).await?);
    let uri: Uri = call.endpoint.parse().expect("endpoints are checked when the client is made");
    // An IPv6 address stands in brackets in a URL, and without them in a certificate.
    let host = uri.host().expect("endpoints are checked to have a host").trim_matches(['[', ']']);
    Ok(TlsOptions::new().ca_certificate(ca).identity(identity).domain_name(host))
}

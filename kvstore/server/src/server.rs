//! The store as others reach it: an engine behind a port.
//!
//! ```text
//! port ─► accept loop ─► connections ─► gRPC services ─► Engine
//!              rules of access ──────────────┘
//! ```
//!
//! Invariants:
//! - Every task is owned by the [`Server`], and ends with it: streams are told, what is under way gets a moment, and then
//!   connections are cut.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::accept::{Guests, READY_CONNECTIONS, accept_loop};
use crate::access::Access;
use crate::compaction::compact;
use crate::connection::Connection;
use crate::engine::{Engine, EngineOptions, OpenError, ShutdownError};
use crate::grpc::{Service, ServiceSettings, WatchCounters};
use crate::http::{Router, serve};
use crate::leader::watch_leader;
use crate::listen::{ListenAddress, ListenUrl};
use crate::platform::Platform;
use crate::quota::Quota;
use crate::tls::{TlsError, TlsSource};
use crate::tls_settings::ServerTls;
use crate::transport::Listener;

/// How long requests under way may take when the server stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Those whom the store is for.
const CLIENTS: Guests = Guests { name: "clients", handshakes: 256, deadline: Duration::from_secs(10) };

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The store behind it.
    pub engine: EngineOptions,
    /// Where it listens for clients.
    pub listen: Vec<ListenUrl>,
    /// Where it listens besides, for those who only ask for metrics and health; etcd's `--listen-metrics-urls`.
    pub listen_metrics: Vec<ListenUrl>,
    /// The URLs by which clients reach it, told to those who ask for the members.
    pub advertise: Vec<String>,
    /// How those come in whose URL has TLS; `None` will do where none has.
    pub tls: Option<ServerTls>,
    /// Who may read and write which keys.
    pub access: Access,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error("cannot listen on {url}")]
    Listen {
        /// Where.
        url: ListenUrl,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is told of nowhere to listen.
    #[error("there is no URL to listen on for clients: give one")]
    NowhereToListen,
    /// A URL has TLS, and there are no files for it.
    #[error("{url} needs a certificate and its key: give both, or listen without TLS")]
    NoCertificate {
        /// The URL.
        url: ListenUrl,
    },
    /// The files of TLS cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Engine(#[from] OpenError),
}

/// A running store. Dropping it ends it at once; [`Server::shutdown`] lets it finish.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    bound: Vec<ListenUrl>,
    bound_metrics: Vec<ListenUrl>,
    watch_counters: Arc<WatchCounters>,
    tasks: JoinSet<()>,
    stop: DropGuard,
    cut: DropGuard,
}

impl Server {
    /// Opens the store and serves it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: ServerOptions) -> Result<Self, StartError> {
        Self::start_with(options, ServiceSettings::default()).await
    }

    /// As [`Server::start`], with other limits and intervals than etcd's.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_with(options: ServerOptions, settings: ServiceSettings) -> Result<Self, StartError> {
        Self::start_on(options, settings, Platform::default()).await
    }

    /// As [`Server::start_with`], with other files and another clock than the kernel's.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on(
        options: ServerOptions,
        settings: ServiceSettings,
        platform: Platform,
    ) -> Result<Self, StartError> {
        let ServerOptions { mut engine, listen, listen_metrics, advertise, tls, access } = options;
        engine.client_urls.clone_from(&advertise);
        let tls = tls.map(TlsSource::new).transpose()?.map(Arc::new);
        if listen.is_empty() {
            return Err(StartError::NowhereToListen);
        }
        let listeners = bind_all(&listen, tls.as_ref())?;
        for (url, _, tls) in &listeners {
            let is_open = matches!(&url.address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
            if tls.is_none() && is_open {
                warn!(%url, "the store is served without TLS beyond this machine: anyone may read and write it");
            }
        }
        let metrics_listeners = bind_all(&listen_metrics, tls.as_ref())?;
        let election_timeout = engine.election_timeout;
        let engine = Engine::open_on(engine, platform).await?;

        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let observed = engine.clone();
        let has_leader = move || observed.has_leader();
        let (is_lost, leader_is_lost) = watch::channel(false);
        let service = Service::new(
            engine.clone(),
            settings,
            access,
            leader_is_lost,
            stop.clone(),
            advertise,
            min_lease_seconds(election_timeout),
        );
        let mut tasks = JoinSet::new();
        let quota = Quota::new(settings.max_connections);
        let mut accept = |listeners: Vec<Bound>, what| {
            let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
            let mut bound = Vec::with_capacity(listeners.len());
            for (url, listener, tls) in listeners {
                info!(%url, what, "the store is served");
                bound.push(url);
                let (quota, cut) = (quota.clone(), cut.clone());
                let admit = move |shaken| Connection::admit(shaken, &quota, cut.clone());
                tasks.spawn(accept_loop(listener, tls, CLIENTS, admit, ready.clone(), stop.clone()));
            }
            (bound, connections)
        };
        let (bound, connections) = accept(listeners, "all");
        let (bound_metrics, metrics_connections) = accept(metrics_listeners, "metrics");
        let watch_stop = stop.clone();
        tasks.spawn(async move {
            watch_stop.run_until_cancelled(watch_leader(has_leader, election_timeout, is_lost)).await;
        });
        let (compacted, compaction_stop) = (engine.clone(), stop.clone());
        tasks.spawn(async move {
            let compaction = compact(&compacted, settings.compaction);
            compaction_stop.run_until_cancelled(compaction).await;
        });
        let (tracker, ended) = (service.tracker().clone(), stop.clone());
        tasks.spawn(async move {
            ended.cancelled().await;
            tracker.close();
            tracker.wait().await;
        });
        let (watches, watches_stop) = (service.clone(), stop.clone());
        tasks.spawn(async move {
            watches_stop.run_until_cancelled(watches.run_watches()).await;
        });
        let watch_counters = Arc::clone(service.watch_hub().counters());
        let router = Router::new(service);
        tasks.spawn(serve(metrics_connections, router.of_metrics(), stop.clone()));
        tasks.spawn(serve(connections, router, stop.clone()));
        let (stop, cut) = (stop.drop_guard(), cut.drop_guard());
        Ok(Self { engine, bound, bound_metrics, watch_counters, tasks, stop, cut })
    }

    /// Where it listens, with the ports that the kernel chose.
    pub fn listens_on(&self) -> &[ListenUrl] {
        &self.bound
    }

    /// Where it listens for those who only ask for metrics and health, likewise.
    pub fn metrics_listen_on(&self) -> &[ListenUrl] {
        &self.bound_metrics
    }

    /// The first port that it listens on; `None` if it only has sockets in the file system.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.iter().find_map(|url| match &url.address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        })
    }

    /// How many watches there are, and how they are.
    pub fn watch_counters(&self) -> &WatchCounters {
        &self.watch_counters
    }

    /// The store behind it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends streams, lets requests finish for a moment, cuts connections and closes the store.
    ///
    /// # Errors
    /// [`ShutdownError`]; the server has ended all the same.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        let Self { engine, mut tasks, stop, cut, .. } = self;
        drop(stop);
        let drained = timeout(DRAIN_DEADLINE, async { while tasks.join_next().await.is_some() {} }).await;
        drop(cut);
        if drained.is_err() {
            info!("clients were still connected, and are cut off");
            let cut_off = timeout(DRAIN_DEADLINE, async { while tasks.join_next().await.is_some() {} }).await;
            if cut_off.is_err() {
                warn!("connections did not end when they were cut");
            }
        }
        tasks.shutdown().await;
        engine.shutdown().await
    }
}

/// A listener, with where it is and what those who come have to show.
type Bound = (ListenUrl, Listener, Option<Arc<TlsSource>>);

fn bind_all(urls: &[ListenUrl], tls: Option<&Arc<TlsSource>>) -> Result<Vec<Bound>, StartError> {
    let bind = |url: &ListenUrl| {
        let tls = match (url.tls, tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(Arc::clone(tls)),
            (true, None) => return Err(StartError::NoCertificate { url: url.clone() }),
        };
        let failed = |source| StartError::Listen { url: url.clone(), source };
        let listener = Listener::bind(&url.address).map_err(failed)?;
        let address = listener.address().map_err(failed)?;
        Ok((ListenUrl { tls: url.tls, address }, listener, tls))
    };
    urls.iter().map(bind).collect()
}

/// The shortest time that a lease lives: a new leader has to be there before the first one can run out, as in etcd.
fn min_lease_seconds(election_timeout: Duration) -> i64 {
    let milliseconds = election_timeout.as_millis() * 3 / 2;
    i64::try_from(milliseconds.div_ceil(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_an_election() {
        assert_eq!(min_lease_seconds(Duration::from_secs(1)), 2);
        assert_eq!(min_lease_seconds(Duration::from_secs(2)), 3);
        assert_eq!(min_lease_seconds(Duration::from_millis(100)), 1);
    }
}

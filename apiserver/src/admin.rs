//! The admin API, `landbridge.admin.v1`: the one door of the cluster for whoever runs it.
//!
//! ```text
//! clusterctl ── Unix socket, its owner alone ──► Service ─► connect: requests, readers, peers
//!                                                        └► status: what is measured, and what is wrong
//! sweep, each second ─► forgets what was not confirmed
//! ```
//!
//! - Nothing here changes the mesh by itself: it writes records, and those who follow them act.

mod connect;
mod error;
mod service;
pub mod socket;
mod status;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use landbridge_apiserver_api::v1::admin_server::AdminServer;
use landbridge_kvstore_client::KvClient;
use tokio::net::UnixListener;
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::warn;

use crate::config::Config;
use crate::peers::PeerStates;
use crate::peers::key_files::KeyFiles;
use crate::pki::Pki;
use crate::store::OwnRecords;

/// How often it is looked for what was not confirmed in time.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What the admin API answers from.
pub struct AdminContext {
    /// Settings.
    pub config: Config,
    /// The cluster's authority.
    pub pki: Arc<Pki>,
    /// Client of the own store.
    pub own: KvClient,
    /// What the own store says.
    pub records: OwnRecords,
    /// Keys to show to peers.
    pub keys: KeyFiles,
    /// How the reading of peers is going.
    pub peers: PeerStates,
    /// Whether this replica publishes.
    pub publishes: watch::Receiver<bool>,
    /// What is wrong with the objects that are published, a sentence each.
    pub source_problems: watch::Receiver<Vec<String>>,
    /// Steps of connecting come one after the other.
    pub steps: Mutex<()>,
}

/// Serves the API until `stop`.
///
/// # Errors
/// Why it cannot be served any more.
pub async fn serve(
    context: Arc<AdminContext>,
    listener: UnixListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let service = AdminServer::new(service::Service(context));
    let connections = UnixListenerStream::new(listener);
    let serving = Server::builder().add_service(service);
    serving
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
        .context("the admin API ended")
}

/// Forgets what was not confirmed in time, for as long as it is polled.
pub async fn sweep(context: Arc<AdminContext>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if *context.publishes.borrow()
            && let Err(error) = context.sweep(SystemTime::now()).await
        {
            warn!(error = %error, "cannot look for what was not confirmed");
        }
    }
}

//! The apiserver as a whole: what starts after what, and ends before what.
//!
//! ```text
//! checks ─► data folder ─► pki ─► store ─► records ─► source, publisher ─► peers ─► admin API
//! ◄───────────────────────────────────────────────────────────────────────── end, the other way round
//! ```
//!
//! - What can be known to fail is looked at before anything is changed.
//! - Every task belongs to a stage. If one ends by itself the whole ends, with the reason.

mod stage;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

pub use self::stage::Stage;

use crate::admin::socket::AdminSocket;
use crate::admin::{self, AdminContext};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::objects::fill_in::Ranges;
use crate::peers::key_files::KeyFiles;
use crate::peers::{self, PeersContext};
use crate::pki::Pki;
use crate::publish::{ClusterFacts, Publisher, PublisherState};
use crate::source::{Problems, Source};
use crate::store::{OwnRecords, OwnStore, StoreOptions};

/// How often it is looked whether certificates are due for renewal.
const RENEW_EVERY: Duration = Duration::from_hours(1);

/// A running apiserver.
pub struct Apiserver {
    // In the order in which they end.
    admin: Stage,
    peers: Stage,
    publishing: Stage,
    records: Stage,
    store: OwnStore,
    _socket: AdminSocket,
    _data_dir: DataDir,
}

impl Apiserver {
    /// Starts everything.
    ///
    /// # Errors
    /// What is missing or in the way. Then nothing runs.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let listen = config.listen;
        drop(TcpListener::bind(listen).with_context(|| format!("--listen: cannot listen at {listen}"))?);
        AdminSocket::check(&config.admin_socket)?;
        let data_dir = DataDir::open(&config.data_dir, &config.origin)?;

        let now = SystemTime::now();
        let pki = Arc::new(Pki::open(&data_dir.join("pki"), config.cluster(), now)?);
        let store = OwnStore::start(StoreOptions {
            cluster: config.cluster().clone(),
            folder: data_dir.join("store"),
            listen,
            advertise: config.advertise.clone(),
            server: pki.server(&config.hosts(), now)?,
            admin: pki.admin(now)?,
        })
        .await?;
        let own = store.client().clone();

        let mut records_stage = Stage::new();
        let records = OwnRecords::follow(&own, &config.origin, store.access(), &mut records_stage);
        records_stage.spawn_droppable("renewing certificates", renew(Arc::clone(&pki), config.hosts()));

        records.read_once().await?;

        let mut publishing = Stage::new();
        let source = Source::start(config.manifests.clone(), publishing.stop_token())
            .await
            .with_context(|| format!("--manifests: {}", config.manifests.display()))?;
        let facts = facts(&config);
        let publisher = Publisher::spawn(own.clone(), source.objects(), facts, publishing.stop_token());
        let (publishes, source_problems) = tell(&mut publishing, publisher.state(), source.problems());
        publishing.spawn("the source", async {
            source.ended().await;
            Ok(())
        });
        publishing.spawn("the publisher", async {
            publisher.ended().await;
            Ok(())
        });

        let mut peers_stage = Stage::new();
        let keys = KeyFiles::open(data_dir.join("peers"))?;
        let (states_out, states) = watch::channel(std::collections::BTreeMap::new());
        let context = PeersContext {
            own: own.clone(),
            origin: config.origin.clone(),
            ranges: config.ranges(),
            records: records.clone(),
            keys: keys.clone(),
            publishes: publishes.clone(),
        };
        peers_stage.spawn_droppable("reading peers", peers::run(context, states_out));

        let mut admin_stage = Stage::new();
        let mut socket = AdminSocket::bind(&config.admin_socket)?;
        let listener = socket.take().context("the admin socket is served already")?;
        info!(
            cluster = %config.cluster(), store = %store.local_addr(), admin = %config.admin_socket.display(),
            "the apiserver runs"
        );
        let context = Arc::new(AdminContext {
            config,
            pki,
            own,
            records,
            keys,
            peers: states,
            publishes,
            source_problems,
            steps: Mutex::new(()),
        });
        admin_stage
            .spawn("the admin API", admin::serve(Arc::clone(&context), listener, admin_stage.stop_token()));
        admin_stage.spawn_droppable("sweeping", async {
            admin::sweep(context).await;
            Ok(())
        });

        Ok(Self {
            admin: admin_stage,
            peers: peers_stage,
            publishing,
            records: records_stage,
            store,
            _socket: socket,
            _data_dir: data_dir,
        })
    }

    /// Where the store listens.
    pub fn store_addr(&self) -> SocketAddr {
        self.store.local_addr()
    }

    /// Runs until `shutdown` completes or a task ends by itself, and ends in order.
    ///
    /// # Errors
    /// The reason why a task ended, or what did not end in order.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            reason = self.admin.ended() => Err(reason),
            reason = self.peers.ended() => Err(reason),
            reason = self.publishing.ended() => Err(reason),
            reason = self.records.ended() => Err(reason),
            reason = self.store.ended() => Err(reason),
        };
        info!("the apiserver ends");
        let mut outcome = outcome;
        for stage in [self.admin, self.peers, self.publishing, self.records] {
            outcome = outcome.and(stage.shutdown().await);
        }
        outcome.and(self.store.shutdown().await)
    }
}

fn facts(config: &Config) -> ClusterFacts {
    ClusterFacts {
        origin: config.origin.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ranges: Ranges { services: Some(config.service_range), pods: config.pod_ranges.clone() },
    }
}

/// Says whether this replica publishes, and what is wrong with what it publishes.
fn tell(
    stage: &mut Stage,
    mut publisher: watch::Receiver<PublisherState>,
    mut problems: watch::Receiver<Problems>,
) -> (watch::Receiver<bool>, watch::Receiver<Vec<String>>) {
    let (publishes, publishes_seen) = watch::channel(false);
    let (sentences, sentences_seen) = watch::channel(Vec::new());
    stage.spawn_droppable("telling who publishes", async move {
        loop {
            let state = publisher.borrow_and_update().clone();
            publishes
                .send_if_modified(|known| std::mem::replace(known, state.publishing) != state.publishing);
            let manifests = problems.borrow_and_update().iter().map(ToString::to_string).collect();
            sentences.send_replace([manifests, state.problems].concat());
            let changed = tokio::select! {
                changed = publisher.changed() => changed,
                changed = problems.changed() => changed,
            };
            if changed.is_err() {
                // Whoever ended is a task of the same stage, which says why.
                std::future::pending::<()>().await;
            }
        }
    });
    (publishes_seen, sentences_seen)
}

/// Renews certificates when they are due. Whoever shows them reads them again for each connection.
async fn renew(pki: Arc<Pki>, hosts: Vec<String>) -> anyhow::Result<()> {
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (pki, hosts) = (Arc::clone(&pki), hosts.clone());
        let renewed = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now();
            pki.server(&hosts, now).and_then(|_| pki.admin(now)).map(drop)
        });
        if let Err(error) = renewed.await.context("renewing certificates")? {
            tracing::error!(
                error = crate::store::chain(&error),
                "cannot renew the cluster's own certificates"
            );
        }
    }
}

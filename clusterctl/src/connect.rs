//! `clusterctl connect`: two clusters become one network, or stay as they were.
//!
//! ```text
//! describe both ─► preflight ─► trust: each signs the other's request ─► declare peers ─► verify ─► confirm
//!                  nothing        └────────────── on any failure: remove what was made ──────┘
//!                  changed
//! ```
//!
//! A side that has not confirmed takes the peer back by itself at a deadline, so that a connect whose command dies
//! leaves nothing either. Only one that dies between both confirmations leaves half a connection, which the next connect
//! names. What somebody else has confirmed meanwhile is not taken back.

mod preflight;
mod verify;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use landbridge_apiserver_api::v1::{
    AddPeerRequest, ConfirmPeerRequest, DescribeClusterRequest, DescribeClusterResponse, GetStatusRequest,
    GetStatusResponse, RemovePeerRequest, RequestCertificateRequest, SignCertificateRequest,
};
use tokio::time::{Instant as Deadline, sleep};

use crate::admin::Cluster;
use crate::contexts::Contexts;
use crate::output::{Mark, escaped, say};
use crate::runtime;

/// How often the state of both sides is asked for while they come together.
const POLL: Duration = Duration::from_millis(100);
/// Beyond the time that verifying may take, for the steps around it.
const CONFIRM_MARGIN: Duration = Duration::from_mins(1);
/// Together with the margin, less than the hour that clusters keep an unconfirmed peer for.
const MAX_TIMEOUT: Duration = Duration::from_mins(30);

/// Connect two clusters
///
/// Each signs the other's certificate request, declares the other as its peer and reads its records. It is done when
/// both have all records of the other and packets have crossed between all their nodes. If anything fails, both are left
/// as they were. Nothing restarts.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    /// One cluster: its name in the configuration, or the address of its admin API
    near: String,
    /// The other one
    far: String,
    /// How long both may take to come together
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = timeout)]
    timeout: humantime::Duration,
    /// Only check whether the clusters fit together
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    contexts: Contexts,
}

impl Connect {
    /// Connects two clusters that the configuration names.
    pub(crate) fn between(near: &str, far: &str, contexts: Contexts) -> Self {
        let timeout = Duration::from_secs(30).into();
        Self { near: near.to_owned(), far: far.to_owned(), timeout, dry_run: false, contexts }
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (near, far) = (self.contexts.find(&self.near)?, self.contexts.find(&self.far)?);
        runtime()?.block_on(async {
            // Both are asked before either is changed.
            let (near, far) = tokio::try_join!(Cluster::open(near), Cluster::open(far))?;
            let (near, far) = tokio::try_join!(Side::describe(near), Side::describe(far))?;
            connect(near, far, *self.timeout, self.dry_run).await
        })
    }
}

/// Reads a time within which both clusters still keep what is not confirmed.
fn timeout(text: &str) -> Result<humantime::Duration, String> {
    let time: humantime::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if *time <= MAX_TIMEOUT {
        Ok(time)
    } else {
        Err(format!("at most {} are possible", humantime::format_duration(MAX_TIMEOUT)))
    }
}

/// A cluster that is being connected.
struct Side {
    cluster: Cluster,
    about: DescribeClusterResponse,
    /// How far its clock is ahead of this machine's, in microseconds.
    clock_ahead_micros: i64,
    /// Whether it was asked to confirm, be it in vain.
    confirming: bool,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escaped(&self.about.name))
    }
}

async fn connect(mut near: Side, mut far: Side, limit: Duration, dry_run: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    say(format_args!("Preflight"))?;
    preflight::check(&near.about, &far.about)?;
    near.add_peer(&far.about, String::new(), None).await?;
    far.add_peer(&near.about, String::new(), None).await?;
    let (a, b) = (&near.about, &far.about);
    good(format_args!(
        "clusters {near} (id {}) and {far} (id {}), in a mesh of up to {}",
        a.id, b.id, a.max_clusters
    ))?;
    good(format_args!(
        "pods in {} and in {}, which do not overlap",
        list(&a.pod_ranges),
        list(&b.pod_ranges)
    ))?;
    let skew = near.clock_ahead_micros.abs_diff(far.clock_ahead_micros);
    good(format_args!("clocks differ by {}", millis(skew)))?;
    if dry_run {
        return say(format_args!("{near} and {far} can be connected; nothing was changed"));
    }

    let outcome = tokio::select! {
        outcome = join(&mut near, &mut far, limit) => outcome,
        signal = tokio::signal::ctrl_c() => Err(signal.map_or_else(Into::into, |()| anyhow!("interrupted"))),
    };
    if let Err(error) = outcome {
        put_back(&mut near, &mut far).await;
        return Err(error);
    }
    say(format_args!("{near} and {far} are connected after {:.1} s", start.elapsed().as_secs_f64()))
}

/// Everything that changes something. Whatever fails in here, the caller puts both back.
async fn join(near: &mut Side, far: &mut Side, limit: Duration) -> anyhow::Result<()> {
    say(format_args!("Trust"))?;
    let for_near = near.certificate_from(far).await?;
    let for_far = far.certificate_from(near).await?;
    good(format_args!("{far} signed a request of {near}, and {near} one of {far}; no key left its cluster"))?;

    reports_are_of_now(near, far, Deadline::now() + limit).await?;
    say(format_args!("Peers"))?;
    let confirm_within = limit + CONFIRM_MARGIN;
    let (a, b) = (near.about.clone(), far.about.clone());
    let revision_near = near.add_peer(&b, for_near, Some(confirm_within)).await?;
    let revision_far = far.add_peer(&a, for_far, Some(confirm_within)).await?;
    good(format_args!(
        "{near} reads {far} (declared at revision {revision_near}), {far} reads {near} (revision {revision_far})"
    ))?;

    say(format_args!("Verify"))?;
    let proof = verified(near, far, Deadline::now() + limit).await?;
    good(format_args!("every node of both has all records of the other: {}", proof.records))?;
    good(format_args!("packets crossed on {} paths between nodes: {}", proof.paths, proof.round_trips))?;
    near.confirm(&b.name).await?;
    far.confirm(&a.name).await
}

/// Waits until no node reports anything of an earlier connection of the two, so that what is verified is this one.
async fn reports_are_of_now(near: &Side, far: &Side, deadline: Deadline) -> anyhow::Result<()> {
    loop {
        let (at_near, at_far) = tokio::try_join!(near.status(), far.status())?;
        let nodes = verify::out_of_date([
            verify::View { status: &at_near, other: &far.about },
            verify::View { status: &at_far, other: &near.about },
        ]);
        if nodes.is_empty() {
            return Ok(());
        }
        if Deadline::now() >= deadline {
            bail!(
                "{} still report an earlier connection of {near} and {far}: see the logs of their agents, then try again",
                nodes.join(", ")
            );
        }
        sleep(POLL).await;
    }
}

/// Waits until both have all of the other.
async fn verified(near: &mut Side, far: &mut Side, deadline: Deadline) -> anyhow::Result<verify::Proof> {
    loop {
        let (at_near, at_far) = tokio::try_join!(near.status(), far.status())?;
        let views = [
            verify::View { status: &at_near, other: &far.about },
            verify::View { status: &at_far, other: &near.about },
        ];
        let missing = match verify::verify(views) {
            Ok(proof) => return Ok(proof),
            Err(missing) => missing,
        };
        if Deadline::now() >= deadline {
            bail!(
                "{near} and {far} did not come together in time; still missing: {}. See `clusterctl status` and the \
                 logs of both apiservers, then try again",
                missing.join("; ")
            );
        }
        sleep(POLL).await;
    }
}

/// Takes back whatever was made. What cannot be taken back now goes by itself at its deadline.
async fn put_back(near: &mut Side, far: &mut Side) {
    let names = (near.about.name.clone(), far.about.name.clone());
    for (side, peer) in [(near, names.1), (far, names.0)] {
        let shown = escaped(&peer);
        match side.take_back(&peer).await {
            Ok(true) => eprintln!("{side} is as it was before"),
            Ok(false) => eprintln!("{side} keeps {shown}, which somebody else connected meanwhile"),
            Err(error) if side.confirming => eprintln!(
                "{side} could not be put back and may keep {shown}; once it answers, run `clusterctl disconnect` for \
                 both: {error:#}"
            ),
            Err(error) => {
                eprintln!("{side} could not be put back now, and forgets {shown} by itself: {error:#}");
            }
        }
    }
}

impl Side {
    async fn describe(mut cluster: Cluster) -> anyhow::Result<Self> {
        let asked = now_micros();
        let answer = cluster.api.describe_cluster(DescribeClusterRequest {}).await;
        let about = answer.map_err(|status| cluster.refused(&status))?.into_inner();
        let middle = i64::midpoint(asked, now_micros());
        Ok(Self {
            cluster,
            clock_ahead_micros: about.clock_micros.saturating_sub(middle),
            about,
            confirming: false,
        })
    }

    /// Has a request of this side signed by the other.
    async fn certificate_from(&mut self, signer: &mut Self) -> anyhow::Result<String> {
        let request = RequestCertificateRequest { peer: signer.about.name.clone() };
        let request = self.cluster.api.request_certificate(request).await;
        let certificate_request = request.map_err(|status| self.cluster.refused(&status))?.into_inner();
        let request = SignCertificateRequest {
            peer: self.about.name.clone(),
            certificate_request: certificate_request.certificate_request,
        };
        let signed = signer.cluster.api.sign_certificate(request).await;
        Ok(signed.map_err(|status| signer.cluster.refused(&status))?.into_inner().certificate)
    }

    /// Declares a peer; without a time to confirm it in, only asks whether that could be done.
    async fn add_peer(
        &mut self,
        peer: &DescribeClusterResponse,
        certificate: String,
        confirm_within: Option<Duration>,
    ) -> anyhow::Result<i64> {
        let seconds = confirm_within.unwrap_or_default().as_secs();
        let request = AddPeerRequest {
            peer: Some(peer.clone()),
            certificate,
            confirm_within_seconds: seconds.try_into().context("the timeout is too long")?,
            dry_run: confirm_within.is_none(),
        };
        let added = self.cluster.api.add_peer(request).await;
        Ok(added.map_err(|status| self.cluster.refused(&status))?.into_inner().revision)
    }

    async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        let status = self.cluster.api.clone().get_status(GetStatusRequest {}).await;
        Ok(status.map_err(|status| self.cluster.refused(&status))?.into_inner())
    }

    async fn confirm(&mut self, peer: &str) -> anyhow::Result<()> {
        self.confirming = true;
        let confirmed = self.cluster.api.confirm_peer(ConfirmPeerRequest { peer: peer.to_owned() }).await;
        confirmed.map(drop).map_err(|status| self.cluster.refused(&status))
    }

    /// Removes what this connect has made of `peer`. Returns whether it was this one's.
    async fn take_back(&mut self, peer: &str) -> anyhow::Result<bool> {
        let is_confirmed =
            self.status().await?.peers.iter().any(|known| known.name == peer && known.confirmed);
        if is_confirmed && !self.confirming {
            return Ok(false);
        }
        let removed = self.cluster.api.remove_peer(RemovePeerRequest { peer: peer.to_owned() }).await;
        removed.map(|_| true).map_err(|status| self.cluster.refused(&status))
    }
}

fn good(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    say(format_args!("  {} {}", Mark::Good, escaped(&text.to_string())))
}

fn list(items: &[String]) -> String {
    items.join(", ")
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

/// Microseconds since 1970 on this machine's clock.
fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

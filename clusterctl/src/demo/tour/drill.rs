//! A cluster fails and comes back, and its clients tell what they saw of it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{anyhow, ensure};
use landbridge_lab::{Deployment, Impairment, Lab};

use super::observed::Observed;
use super::report;
use super::requests::Requests;

/// Traffic has to have moved by then.
const MOVE_LIMIT: Duration = Duration::from_secs(5);
/// How long anything may take until the drill gives up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Requests in a row, of each client, that make a state steady: a second of them.
const ENOUGH: usize = 50;

/// A steady load from the client pods of both clusters.
pub(super) struct Loads {
    clients: Vec<Client>,
}

struct Client {
    name: String,
    cluster: String,
    requests: Requests,
}

impl Loads {
    /// Starts a load in every pod called `client-…`, on the address of its own cluster's service.
    pub(super) fn start(clusters: &[(&Deployment, SocketAddr)]) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for (cluster, target) in clusters {
            for pod in cluster.pods().iter().filter(|pod| pod.name().starts_with("client-")) {
                let requests = Requests::start(pod.host(), pod.name(), *target)?;
                clients.push(Client {
                    name: pod.name().to_owned(),
                    cluster: cluster.cluster().to_owned(),
                    requests,
                });
            }
        }
        Ok(Self { clients })
    }

    fn of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Client> {
        self.clients.iter().filter(move |client| client.cluster == cluster)
    }

    /// Polls the clients of `cluster` until `look` has a value for each of them; returns the largest.
    fn wait_for(
        &self,
        cluster: &str,
        what: impl fmt::Display,
        look: impl Fn(&Observed) -> Option<Duration>,
    ) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut times = Vec::new();
            for client in self.of(cluster) {
                times.push((client, look(&client.requests.seen()?)));
            }
            let Some((late, _)) = times.iter().find(|(_, time)| time.is_none()) else {
                let times = times.into_iter().filter_map(|(_, time)| time);
                return times.max().ok_or_else(|| anyhow!("cluster {cluster} has no client"));
            };
            let name = &late.name;
            ensure!(
                Instant::now() < deadline,
                "{name} did not see within {} s that {what}",
                TIMEOUT.as_secs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many requests all clients of `cluster` sent in a time, in microseconds since 1970, and how many of them failed.
    fn failed_in(&self, cluster: &str, time: RangeInclusive<u64>) -> anyhow::Result<(u64, u64)> {
        let mut totals = (0, 0);
        for client in self.of(cluster) {
            let seen = client.requests.seen()?.since(*time.start()).until(*time.end());
            totals = (totals.0 + seen.failed(), totals.1 + seen.sent());
        }
        Ok(totals)
    }
}

/// Cuts `victim` off under load, brings it back, and reports what the clients of `survivor` saw.
pub(super) fn run(
    lab: &Lab,
    victim: &mut Deployment,
    loads: &mut Loads,
    survivor: &str,
) -> anyhow::Result<()> {
    let name = victim.cluster().to_owned();
    let before = now_micros();
    for cluster in [survivor, name.as_str()] {
        loads.wait_for(cluster, "both clusters answer", |seen| {
            let both = seen.since(before).clusters().len() == 2;
            seen.settled(before, None, ENOUGH).filter(|_| both)
        })?;
    }

    let link = lab.link(&name)?;
    let cut = now_micros();
    link.set_both(Impairment { cut: true, ..Impairment::NONE })?;
    victim.kill()?;
    let moved = loads.wait_for(survivor, format_args!("{survivor} answers everything"), |seen| {
        seen.settled(cut, Some(survivor), ENOUGH)
    })?;
    let moved_at = cut.saturating_add(u64::try_from(moved.as_micros()).unwrap_or(u64::MAX));
    let (failed, sent) = loads.failed_in(survivor, cut..=moved_at)?;
    report(format_args!(
        "{:.2} s after the cut, {survivor} answers every request of its clients; until then {failed} of {sent} failed",
        moved.as_secs_f64()
    ))?;
    ensure!(moved <= MOVE_LIMIT, "that is longer than {} s", MOVE_LIMIT.as_secs());

    // As after a power failure: what a cluster runs is up before its way to others is.
    victim.bring_back()?;
    let back = now_micros();
    link.clear()?;
    for client in loads.clients.iter_mut().filter(|client| client.cluster == name) {
        client.requests.restart()?;
    }
    let returned = loads.wait_for(survivor, format_args!("{name} answers again"), |seen| {
        seen.settled(back, None, ENOUGH).and(seen.first_answer_of(&name, back))
    })?;
    let returned_at = now_micros();
    loads.wait_for(&name, "both clusters answer again", |seen| {
        let both = seen.since(returned_at).clusters().len() == 2;
        seen.settled(returned_at, None, ENOUGH).filter(|_| both)
    })?;
    let (failed, sent) = loads.failed_in(survivor, back..=now_micros())?;
    report(format_args!(
        "{name} runs again, and {:.2} s after its links are back it answers {survivor}'s clients; {failed} of {sent} requests \
         failed meanwhile",
        returned.as_secs_f64()
    ))
}

fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

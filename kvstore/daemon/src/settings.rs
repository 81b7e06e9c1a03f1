//! Settings of the store, from what was given for the flags: every rule that concerns more than one flag is checked here.

mod cluster;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use landbridge_kvstore_server::backup::RestoreOptions;
use landbridge_kvstore_server::engine::EngineOptions;
use landbridge_kvstore_server::wal::WalOptions;
use landbridge_kvstore_server::{
    Access, AuthOptions, CompactionMode, ListenUrl, ServerOptions, ServiceSettings,
};

use crate::flags::{Values, parse_duration};

/// The longest time without a leader, as in etcd.
const LONGEST_ELECTION: Duration = Duration::from_secs(50);

/// All that a store needs to start.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) options: ServerOptions,
    pub(crate) service: ServiceSettings,
    /// What the log should say.
    pub(crate) notes: Vec<String>,
}

impl Settings {
    /// # Errors
    /// Which flags do not go together, with what to do.
    pub(crate) fn new(values: &Values) -> Result<Self> {
        let mut notes = Vec::new();
        let listen = urls(values, "listen-client-urls")?;
        if values.is_given("listen-client-urls") && !values.is_given("advertise-client-urls") {
            bail!("--advertise-client-urls is required when --listen-client-urls is set explicitly");
        }
        let advertise = advertised(values, "advertise-client-urls")?;
        let listen_metrics = match values.some("listen-metrics-urls") {
            Some(_) => urls(values, "listen-metrics-urls")?,
            None => Vec::new(),
        };
        let tls = tls::of_clients(values, &listen, &listen_metrics, &mut notes)?;
        let access = Access::Store(users(values, &mut notes)?);
        let engine = engine(values, &mut notes)?;
        let options = ServerOptions { engine, listen, listen_metrics, advertise, tls, access };
        Ok(Self { options, service: service(values)?, notes })
    }
}

/// The member that a snapshot is restored to, from the flags that it is started with afterwards.
///
/// # Errors
/// Which flags do not go together.
pub(crate) fn of_restored_member(values: &Values) -> Result<RestoreOptions> {
    Ok(RestoreOptions {
        data_dir: data_dir(values)?,
        name: values.text("name").to_owned(),
        cluster: cluster::of(values)?,
        advertise: advertised(values, "initial-advertise-peer-urls")?,
        bump_revision: 0,
        mark_compacted: false,
        wal: WalOptions::default(),
    })
}

/// How users prove who they are. A cost that bcrypt does not have is taken for the default, as in etcd.
fn users(values: &Values, notes: &mut Vec<String>) -> Result<AuthOptions> {
    let given = values.text("auth-token");
    let token = given.parse().with_context(|| format!("--auth-token={given} cannot be used"))?;
    let default = AuthOptions::default().bcrypt_cost;
    let cost = values.number("bcrypt-cost");
    let bcrypt_cost = u32::try_from(cost).ok().filter(|cost| (4..=31).contains(cost));
    if bcrypt_cost.is_none() {
        notes.push(format!("--bcrypt-cost={cost} is not from 4 to 31: {default} is used"));
    }
    Ok(AuthOptions { token, bcrypt_cost: bcrypt_cost.unwrap_or(default) })
}

fn engine(values: &Values, notes: &mut Vec<String>) -> Result<EngineOptions> {
    let heartbeat = Duration::from_millis(values.number("heartbeat-interval"));
    let election_timeout = Duration::from_millis(values.number("election-timeout"));
    ensure!(!heartbeat.is_zero(), "--heartbeat-interval must be >0 (set to 0ms)");
    ensure!(!election_timeout.is_zero(), "--election-timeout must be >0 (set to 0ms)");
    ensure!(
        5 * heartbeat <= election_timeout,
        "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
        election_timeout.as_millis(),
        heartbeat.as_millis()
    );
    ensure!(
        election_timeout <= LONGEST_ELECTION,
        "--election-timeout[{}ms] is too long, and should be set less than {}ms",
        election_timeout.as_millis(),
        LONGEST_ELECTION.as_millis()
    );
    let snapshot_entries = values.number("snapshot-count");
    ensure!(snapshot_entries > 0, "--snapshot-count is 0: set it to 1 or more");
    let data_dir = data_dir(values)?;
    Ok(EngineOptions {
        name: values.text("name").to_owned(),
        cluster: cluster::of(values)?,
        peers: cluster::peers(values, notes)?,
        snapshot_entries,
        quota_bytes: values.integer("quota-backend-bytes"),
        election_timeout,
        heartbeat,
        token_ttl: Duration::from_secs(match values.number("auth-token-ttl") {
            // As in etcd.
            0 => 300,
            seconds => seconds,
        }),
        ..EngineOptions::new(data_dir)
    })
}

/// The folder of all data; one that etcd filled is left alone.
fn data_dir(values: &Values) -> Result<PathBuf> {
    let name = values.text("name");
    let dir = values.some("data-dir").map_or_else(|| PathBuf::from(format!("{name}.etcd")), PathBuf::from);
    let theirs = Path::new("member/snap/db");
    ensure!(
        !dir.join(theirs).exists(),
        "{} holds data of etcd, which this store cannot read: give another --data-dir, and bring the keys over with \
         `etcdctl make-mirror`",
        dir.display()
    );
    Ok(dir)
}

fn service(values: &Values) -> Result<ServiceSettings> {
    let size = |name: &str| usize::try_from(values.number(name)).with_context(|| format!("--{name}"));
    let max_request_bytes = size("max-request-bytes")?;
    let largest = usize::try_from(i32::MAX)? - (1 << 20);
    ensure!(
        (1..=largest).contains(&max_request_bytes),
        "--max-request-bytes is {max_request_bytes}: set it to 1 to {largest}"
    );
    let max_txn_ops = size("max-txn-ops")?;
    ensure!(max_txn_ops > 0, "--max-txn-ops is 0: set it to 1 or more");
    let progress_interval = values.duration("experimental-watch-progress-notify-interval");
    ensure!(
        !progress_interval.is_zero(),
        "--experimental-watch-progress-notify-interval is 0: set it to 10m"
    );
    let (ping_interval, ping_timeout) =
        (values.duration("grpc-keepalive-interval"), values.duration("grpc-keepalive-timeout"));
    ensure!(!ping_timeout.is_zero(), "--grpc-keepalive-timeout is 0: set it to 20s");
    let mut settings = ServiceSettings {
        max_request_bytes,
        max_txn_ops,
        progress_interval,
        compaction: compaction(values)?,
        ping_interval: Some(ping_interval).filter(|interval| !interval.is_zero()),
        ping_timeout,
        times_calls: values.text("metrics") == "extensive",
        ..ServiceSettings::default()
    };
    if values.is_given("max-concurrent-streams") {
        let streams = values.number("max-concurrent-streams");
        let streams = u32::try_from(streams).ok().filter(|streams| *streams > 0);
        settings.max_streams = streams.with_context(|| {
            let given = values.text("max-concurrent-streams");
            format!("--max-concurrent-streams is {given}: set it to 1 to {}", u32::MAX)
        })?;
    }
    Ok(settings)
}

/// How much history is kept.
fn compaction(values: &Values) -> Result<CompactionMode> {
    let given = values.text("auto-compaction-retention");
    match values.text("auto-compaction-mode") {
        "revision" => {
            let revisions = given.parse::<i64>().ok().filter(|revisions| *revisions >= 0);
            let revisions = revisions.with_context(|| {
                format!("error parsing auto-compaction-retention {given:?}: give a number of revisions, 0 keeps all")
            })?;
            Ok(CompactionMode::Revision(revisions))
        }
        _ => Ok(CompactionMode::Periodic(retention(given)?)),
    }
}

/// How long history is kept: hours where there is no unit; for good if it is 0.
fn retention(text: &str) -> Result<Duration> {
    let hours = text.parse::<u32>().ok().map(|hours| Duration::from_hours(u64::from(hours)));
    let Some(retention) = hours.or_else(|| parse_duration(text)) else {
        bail!("error parsing auto-compaction-retention {text:?}: give hours, or a time such as 5m");
    };
    Ok(if retention.is_zero() { Duration::MAX } else { retention })
}

/// The URLs of a flag, to listen on.
fn urls(values: &Values, name: &str) -> Result<Vec<ListenUrl>> {
    let list = values.list(name);
    ensure!(!list.is_empty(), "--{name} is empty: give a URL such as http://localhost:2379");
    list.into_iter().map(|url| url.parse().with_context(|| format!("--{name}"))).collect()
}

/// The URLs of a flag, for others to reach this member by. They may have names.
fn advertised(values: &Values, name: &str) -> Result<Vec<String>> {
    let list = values.list(name);
    ensure!(!list.is_empty(), "--{name} is empty: give the URL by which others reach this member");
    list.into_iter()
        .map(|url| {
            check_url(url).with_context(|| format!("--{name}"))?;
            Ok(url.to_owned())
        })
        .collect()
}

/// Whether a URL has the form that etcd wants of one.
fn check_url(url: &str) -> Result<()> {
    let scheme = url.split_once("://");
    let (scheme, rest) =
        scheme.with_context(|| format!("URL scheme must be http, https, unix, or unixs: {url}"))?;
    match scheme {
        "unix" | "unixs" => Ok(()),
        "http" | "https" => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            ensure!(path.is_empty(), "URL must not contain a path: {url}");
            let port = host.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
            let (_, port) =
                port.with_context(|| format!("URL address does not have the form \"host:port\": {url}"))?;
            port.parse::<u16>().map(drop).with_context(|| format!("the port of {url}"))
        }
        _ => bail!("URL scheme must be http, https, unix, or unixs: {url}"),
    }
}

#[cfg(test)]
mod tests;

//! The command line, checked once and as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use landbridge_kvstore_schema::{
    ClusterId, ClusterName, IpPrefix, Ipv4Prefix, Keyspace, MaxClusters, Origin,
};

use crate::peers::addresses::{Ranges, is_of_hosts, overlap};

/// Serves a cluster: its store, its records, its peers and its admin API.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Name of the cluster: lower case letters, digits and `-`.
    #[arg(long, env = "LANDBRIDGE_APISERVER_CLUSTER")]
    pub cluster: String,
    /// Number of the cluster in the mesh, from 1.
    #[arg(long, env = "LANDBRIDGE_APISERVER_CLUSTER_ID")]
    pub cluster_id: u32,
    /// Largest number of clusters in the mesh: 255 or 511. It cannot be changed later.
    #[arg(long, env = "LANDBRIDGE_APISERVER_MAX_CLUSTERS", default_value_t = 255)]
    pub max_clusters: u32,
    /// Folder for keys and the store.
    #[arg(long, env = "LANDBRIDGE_APISERVER_DATA_DIR", default_value = "/var/lib/landbridge/apiserver")]
    pub data_dir: PathBuf,
    /// Folder with the manifests of the cluster's objects.
    #[arg(long, env = "LANDBRIDGE_APISERVER_MANIFESTS")]
    pub manifests: PathBuf,
    /// Address and port that the store listens at.
    #[arg(long, env = "LANDBRIDGE_APISERVER_LISTEN", default_value = "0.0.0.0:2379")]
    pub listen: SocketAddr,
    /// Where agents and peers reach the store, such as `https://192.0.2.7:2379`.
    #[arg(long, env = "LANDBRIDGE_APISERVER_ADVERTISE", value_delimiter = ',', required = true)]
    pub advertise: Vec<String>,
    /// Unix socket of the admin API.
    #[arg(long, env = "LANDBRIDGE_APISERVER_ADMIN_SOCKET", default_value = "/run/landbridge/admin.sock")]
    pub admin_socket: PathBuf,
    /// Addresses of the cluster's pods, such as `10.1.0.0/16,fd10:1::/32`. Nodes get parts of the first range of IPv4, and
    /// declare theirs of IPv6.
    #[arg(long, env = "LANDBRIDGE_APISERVER_POD_RANGE", value_delimiter = ',', required = true)]
    pub pod_range: Vec<IpPrefix>,
    /// IPv4 addresses of the cluster's services, such as `10.96.0.0/16`.
    #[arg(long, env = "LANDBRIDGE_APISERVER_SERVICE_RANGE")]
    pub service_range: Ipv4Prefix,
}

/// Settings that fit together.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster, with the keys that it publishes under.
    pub origin: Origin,
    /// Folder for keys and the store.
    pub data_dir: PathBuf,
    /// Folder with the manifests.
    pub manifests: PathBuf,
    /// Where the store listens.
    pub listen: SocketAddr,
    /// Where others reach the store, `https://`.
    pub advertise: Vec<String>,
    /// Unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Ranges of pods.
    pub pod_ranges: Vec<IpPrefix>,
    /// Range of services.
    pub service_range: Ipv4Prefix,
}

impl Config {
    /// The cluster's name.
    pub const fn cluster(&self) -> &ClusterName {
        &self.origin.keyspace.cluster
    }

    /// Hosts of the advertised URLs, and the address listened at: what the store's certificate is for.
    pub fn hosts(&self) -> Vec<String> {
        let advertised = self.advertise.iter().filter_map(|url| host(url)).map(str::to_owned);
        advertised.chain([self.listen.ip().to_string()]).collect()
    }

    /// The cluster's ranges, as others see them.
    pub fn ranges(&self) -> Ranges {
        Ranges { pods: self.pod_ranges.clone(), services: vec![IpPrefix::V4(self.service_range)] }
    }
}

impl TryFrom<ServeArgs> for Config {
    type Error = anyhow::Error;

    fn try_from(args: ServeArgs) -> anyhow::Result<Self> {
        let cluster = ClusterName::new(&args.cluster).context("--cluster")?;
        let max = max_clusters(args.max_clusters)?;
        let cluster_id = ClusterId::new(args.cluster_id, max).context("--cluster-id")?;
        ensure!(
            !args.advertise.is_empty(),
            "--advertise: name where the store is reached, as https://<host>:<port>"
        );
        ensure!(
            args.pod_range.iter().any(|range| matches!(range, IpPrefix::V4(_))),
            "--pod-range: name a range of IPv4 too, which nodes get parts of"
        );
        for url in &args.advertise {
            ensure!(host(url).is_some(), "--advertise: {url:?} is not of the form https://<host>:<port>");
        }
        ensure!(
            args.manifests.is_dir(),
            "--manifests: {} is not a folder; make it, or name the one with the cluster's manifests",
            args.manifests.display()
        );
        let config = Self {
            origin: Origin { keyspace: Keyspace::state(cluster), cluster_id },
            data_dir: args.data_dir,
            manifests: args.manifests,
            listen: args.listen,
            advertise: args.advertise,
            admin_socket: args.admin_socket,
            pod_ranges: args.pod_range,
            service_range: args.service_range,
        };
        check_ranges(&config.ranges())?;
        Ok(config)
    }
}

fn max_clusters(number: u32) -> anyhow::Result<MaxClusters> {
    let all = [MaxClusters::Of255, MaxClusters::Of511];
    let known = all.into_iter().find(|max| u32::from(max.get()) == number);
    known.with_context(|| format!("--max-clusters: {number} is neither 255 nor 511"))
}

fn check_ranges(ranges: &Ranges) -> anyhow::Result<()> {
    let pods = ranges.pods.iter().map(|range| ("--pod-range", range));
    let all: Vec<_> = pods.chain(ranges.services.iter().map(|range| ("--service-range", range))).collect();
    for (index, (flag, range)) in all.iter().enumerate() {
        ensure!(is_of_hosts(range), "{flag}: {range} holds addresses that no host can have");
        if let Some((other_flag, other)) = all[..index].iter().find(|(_, other)| overlap(other, range)) {
            bail!("{flag}: {range} overlaps {other} of {other_flag}; give each its own addresses");
        }
    }
    Ok(())
}

/// The host of `https://<host>:<port>`, without the brackets of an IPv6 address.
pub(crate) fn host(url: &str) -> Option<&str> {
    let (host, port) = url.strip_prefix("https://")?.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    let host = if is_ipv6 { &host[1..host.len() - 1] } else { host };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-') || (is_ipv6 && c == ':');
    (!host.is_empty() && host.chars().all(is_plain)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(folder: &std::path::Path) -> ServeArgs {
        ServeArgs {
            cluster: "paris".to_owned(),
            cluster_id: 7,
            max_clusters: 255,
            data_dir: folder.join("data"),
            manifests: folder.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: vec!["https://192.0.2.7:2379".to_owned(), "https://[fd00::7]:2379".to_owned()],
            admin_socket: folder.join("admin.sock"),
            pod_range: vec!["10.7.0.0/16".parse().unwrap()],
            service_range: "10.96.0.0/16".parse().unwrap(),
        }
    }

    #[test]
    fn settings_that_fit_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::try_from(args(folder.path())).unwrap();
        assert_eq!(config.hosts(), ["192.0.2.7", "fd00::7", "127.0.0.1"]);
        assert_eq!(config.cluster().as_str(), "paris");
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |change: fn(&mut ServeArgs), expected: &str| {
            let mut args = args(folder.path());
            change(&mut args);
            let error = format!("{:#}", Config::try_from(args).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        refused(|args| args.cluster = "Paris".to_owned(), "--cluster: cluster name \"Paris\"");
        refused(|args| args.cluster_id = 0, "--cluster-id: cluster id 0 is not in 1..=255");
        refused(|args| args.cluster_id = 256, "--cluster-id: cluster id 256");
        refused(|args| args.max_clusters = 256, "--max-clusters: 256 is neither");
        refused(|args| args.advertise = vec!["http://192.0.2.7:2379".to_owned()], "--advertise: \"http://");
        refused(|args| args.advertise = vec!["https://192.0.2.7".to_owned()], "--advertise");
        refused(|args| args.manifests.push("missing"), "--manifests");
        refused(
            |args| args.service_range = "10.7.1.0/24".parse().unwrap(),
            "--service-range: 10.7.1.0/24 overlaps",
        );
        refused(
            |args| args.pod_range = vec!["127.0.0.0/16".parse().unwrap()],
            "--pod-range: 127.0.0.0/16 holds",
        );
    }
}

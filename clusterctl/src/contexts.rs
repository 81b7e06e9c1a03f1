//! Which clusters there are, and where their admin API is.
//!
//! ```yaml
//! # ~/.config/landbridge/clusterctl.yaml
//! clusters:
//!   - name: a
//!     admin: unix:///run/landbridge/admin.sock
//! ```

use std::path::PathBuf;
use std::{env, fs, io};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Where the admin API is on a machine that runs one cluster.
const DEFAULT_ADMIN: &str = "unix:///run/landbridge/admin.sock";

/// What the cluster of this machine is called where there is no configuration.
const LOCAL: &str = "local";

/// How a command finds clusters.
#[derive(Args, Clone, Debug)]
pub(crate) struct Contexts {
    /// File that names the clusters and where their admin API is [default: ~/.config/landbridge/clusterctl.yaml]
    #[arg(long, env = "CLUSTERCTL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The clusters, in the order that they are shown in.
    pub(crate) clusters: Vec<ClusterContext>,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterContext {
    /// What it is called on the command line.
    pub(crate) name: String,
    /// Where its admin API is: `unix:///path`.
    pub(crate) admin: String,
}

impl Contexts {
    /// Contexts of the file `config`.
    pub(crate) fn of_file(config: PathBuf) -> Self {
        Self { config: Some(config) }
    }

    /// The cluster that a command calls `name`: one of the file, or an address of an admin API itself.
    pub(crate) fn find(&self, name: &str) -> anyhow::Result<ClusterContext> {
        if name.starts_with("unix://") {
            return Ok(ClusterContext { name: name.to_owned(), admin: name.to_owned() });
        }
        let (path, config) = self.load()?;
        if !path.exists() && name != LOCAL {
            bail!(
                "cannot find cluster {name:?}, since there is no {}: write one that names it, or use the address of its \
                 admin API, such as {DEFAULT_ADMIN}",
                path.display()
            );
        }
        let known: Vec<String> = config.clusters.iter().map(|cluster| cluster.name.clone()).collect();
        config.clusters.into_iter().find(|cluster| cluster.name == name).ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            anyhow!(
                "no cluster {name:?} in {} (it names {known}): add it, or use the address of its admin API, such as \
                 {DEFAULT_ADMIN}",
                path.display()
            )
        })
    }

    /// The clusters named on the command line, or all of the file.
    pub(crate) fn choose(&self, names: &[String]) -> anyhow::Result<Vec<ClusterContext>> {
        if !names.is_empty() {
            return names.iter().map(|name| self.find(name)).collect();
        }
        let (path, config) = self.load()?;
        if config.clusters.is_empty() {
            bail!("{} names no cluster: add one, or give the address of its admin API", path.display());
        }
        Ok(config.clusters)
    }

    /// The file and what it says. Without a file, the cluster that this machine runs.
    fn load(&self) -> anyhow::Result<(PathBuf, Config)> {
        let (path, is_chosen) = match &self.config {
            Some(path) => (path.clone(), true),
            None => (default_path()?, false),
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_chosen => {
                let local = ClusterContext { name: LOCAL.to_owned(), admin: DEFAULT_ADMIN.to_owned() };
                return Ok((path, Config { clusters: vec![local] }));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let config = serde_saphyr::from_str(&text)
            .map_err(|error| anyhow!("{} is not a configuration of clusterctl: {error}", path.display()))?;
        Ok((path, config))
    }
}

fn default_path() -> anyhow::Result<PathBuf> {
    let config = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .context("neither XDG_CONFIG_HOME nor HOME says where the configuration is: use --config")?;
    Ok(config.join("landbridge/clusterctl.yaml"))
}

//! The folder that makes a cluster this cluster: its keys and its store.
//!
//! ```text
//! <data>/cluster.json  which cluster it was made for
//!        .lock         held while an apiserver runs on it
//!        pki/ peers/ store/
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use landbridge_kvstore_schema::{ClusterId, ClusterName, MaxClusters, Origin};
use serde::{Deserialize, Serialize};

use crate::pki::{create_private_folder, read_text, write_private};

/// The folder of a cluster, for this process alone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Which cluster a folder was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    name: String,
    id: u16,
    max_clusters: u16,
}

impl DataDir {
    /// Opens the folder of the cluster of `origin`, and makes it at the first time.
    ///
    /// # Errors
    /// If it is of another cluster, in use, or not writable.
    pub fn open(path: &Path, origin: &Origin) -> anyhow::Result<Self> {
        let wanted = Made {
            name: origin.keyspace.cluster.to_string(),
            id: origin.cluster_id.get(),
            max_clusters: origin.cluster_id.max_clusters().get(),
        };
        // Looked at before anything is touched.
        let made = made(path)?;
        let shown = path.display();
        if let Some(made) = &made {
            check(path, made, &wanted)?;
        }
        let context = || format!("--data-dir: {shown} cannot be used");
        create_private_folder(path).with_context(context)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(".lock"));
        let lock = lock.with_context(context)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("--data-dir: {shown} is in use by another apiserver; stop it, or name another folder")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        if made.is_none() {
            let text = serde_json::to_vec(&wanted).context("writing down the cluster")?;
            write_private(&path.join("cluster.json"), &text).with_context(context)?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A folder or file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The cluster that the folder at `path` was made for.
///
/// # Errors
/// If there is none, or what says so cannot be read.
pub fn cluster_of(path: &Path) -> anyhow::Result<(ClusterName, ClusterId)> {
    let shown = path.display();
    let made = made(path)?.with_context(|| {
        format!("--data-dir: {shown} is not the data folder of a cluster; start landbridge-apiserver serve on it first")
    })?;
    let max = if made.max_clusters == 511 { MaxClusters::Of511 } else { MaxClusters::Of255 };
    Ok((ClusterName::new(&made.name)?, ClusterId::new(made.id.into(), max)?))
}

fn made(path: &Path) -> anyhow::Result<Option<Made>> {
    let file = path.join("cluster.json");
    let shown = file.display();
    match read_text(&file) {
        Err(error) if error.is_not_found() => Ok(None),
        text => serde_json::from_str(&text?)
            .with_context(|| {
                format!("--data-dir: {shown} does not say which cluster it is; put it back from a backup")
            })
            .map(Some),
    }
}

fn check(path: &Path, made: &Made, wanted: &Made) -> anyhow::Result<()> {
    let shown = path.display();
    let advice = "its identities and certificates are made for that; name another folder";
    let Made { name, id, max_clusters } = made;
    ensure!(*name == wanted.name, "--cluster: {shown} is of cluster {name}, not {}; {advice}", wanted.name);
    ensure!(
        *id == wanted.id,
        "--cluster-id: {shown} is of a cluster with id {id}, not {}; {advice}",
        wanted.id
    );
    ensure!(
        *max_clusters == wanted.max_clusters,
        "--max-clusters: {shown} is of a mesh of {max_clusters}, not {}; {advice}",
        wanted.max_clusters
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_schema::Keyspace;

    use super::*;

    fn origin(name: &str, id: u32, max: MaxClusters) -> Origin {
        let keyspace = Keyspace::state(ClusterName::new(name).unwrap());
        Origin { keyspace, cluster_id: ClusterId::new(id, max).unwrap() }
    }

    #[test]
    fn a_folder_is_of_one_cluster_and_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        assert!(cluster_of(&path).unwrap_err().to_string().contains("not the data folder"));
        let paris = origin("paris", 7, MaxClusters::Of255);
        let held = DataDir::open(&path, &paris).unwrap();
        assert!(DataDir::open(&path, &paris).unwrap_err().to_string().contains("in use"));
        drop(held);
        DataDir::open(&path, &paris).unwrap();
        assert_eq!(cluster_of(&path).unwrap(), (paris.keyspace.cluster.clone(), paris.cluster_id));

        for (other, flag) in [
            (origin("lyon", 7, MaxClusters::Of255), "--cluster: "),
            (origin("paris", 8, MaxClusters::Of255), "--cluster-id: "),
            (origin("paris", 7, MaxClusters::Of511), "--max-clusters: "),
        ] {
            let error = DataDir::open(&path, &other).unwrap_err().to_string();
            assert!(error.starts_with(flag) && error.contains("name another folder"), "{error}");
        }
    }
}

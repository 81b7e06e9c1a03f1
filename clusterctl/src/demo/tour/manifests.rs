//! The demo's manifests, carried in the program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A file below `deploy/demo`, by its path there.
macro_rules! file {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../../deploy/demo/", $path)))
    };
}

/// All of them, as the test below makes sure.
const FILES: [(&str, &str); 17] = [
    file!("a/namespace.yaml"),
    file!("a/nodes.yaml"),
    file!("a/pods/client-a1.yaml"),
    file!("a/pods/client-a2.yaml"),
    file!("a/pods/web-a1.yaml"),
    file!("a/pods/web-a2.yaml"),
    file!("a/vault.yaml"),
    file!("a/web.yaml"),
    file!("b/namespace.yaml"),
    file!("b/nodes.yaml"),
    file!("b/pods/client-b1.yaml"),
    file!("b/pods/client-b2.yaml"),
    file!("b/pods/vault.yaml"),
    file!("b/pods/web-b1.yaml"),
    file!("b/pods/web-b2.yaml"),
    file!("b/vault.yaml"),
    file!("b/web.yaml"),
];

/// Writes the manifests into `folder`, one folder per cluster.
pub(super) fn unpack(folder: &Path) -> anyhow::Result<PathBuf> {
    for (path, text) in FILES {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_carried() {
        let folder = tempfile::tempdir().unwrap();
        unpack(folder.path()).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
        for cluster in ["a", "b"] {
            for below in [cluster.to_owned(), format!("{cluster}/pods")] {
                for entry in fs::read_dir(source.join(&below)).unwrap() {
                    let path = entry.unwrap().path();
                    let copy = folder.path().join(&below).join(path.file_name().unwrap());
                    assert!(path.is_dir() || copy.is_file(), "{} is not carried", path.display());
                }
            }
        }
    }
}

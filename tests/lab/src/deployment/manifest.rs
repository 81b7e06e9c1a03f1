//! Manifests, as far as whoever runs pods has to understand them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::DeploymentError;

/// One document of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    /// The file it is from, below the folder that was read.
    path: PathBuf,
    /// Which one of the file's documents it is.
    number: usize,
    text: String,
    /// Set if it is a pod.
    pub(super) pod: Option<Pod>,
}

/// A pod, as its manifest describes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: String,
    pub(super) containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    pub(super) command: Vec<String>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Variable {
    pub(super) name: String,
    value: String,
    value_from: Option<ValueFrom>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ValueFrom {
    field_ref: FieldRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FieldRef {
    field_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) container_port: u16,
}

/// Reads all documents of the YAML files in `folder` and below it, in the order of the files' paths.
pub(super) fn read(folder: &Path) -> Result<Vec<Manifest>, DeploymentError> {
    let mut files = Vec::new();
    collect_files(folder, &mut files)?;
    files.sort();
    let mut manifests = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(DeploymentError::file("read", &file))?;
        let path = file.strip_prefix(folder).unwrap_or(&file).to_owned();
        for (number, text) in documents(&text).enumerate() {
            let wrong = |error: serde_saphyr::Error| DeploymentError::Manifest {
                path: file.clone(),
                reason: error.to_string(),
            };
            let object: Pod = serde_saphyr::from_str(&text).map_err(wrong)?;
            let pod = (object.kind == "Pod").then_some(object);
            manifests.push(Manifest { path: path.clone(), number, text, pod });
        }
    }
    Ok(manifests)
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DeploymentError> {
    let entries = fs::read_dir(folder).map_err(DeploymentError::file("list", folder))?;
    for entry in entries {
        let path = entry.map_err(DeploymentError::file("list", folder))?.path();
        if path.is_dir() {
            collect_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}

/// Writes one file per document into `folder`, which is made.
pub(super) fn write_all(manifests: &[Manifest], folder: &Path) -> Result<(), DeploymentError> {
    manifests.iter().try_for_each(|manifest| manifest.write(folder, &manifest.text))
}

impl Manifest {
    /// Writes the manifest with the status of a pod that runs and is ready.
    pub(super) fn write_ready(&self, folder: &Path, addresses: &[IpAddr]) -> Result<(), DeploymentError> {
        let list: Vec<String> = addresses.iter().map(|address| format!("{{ip: \"{address}\"}}")).collect();
        let status = format!(
            "status:\n  phase: Running\n  podIPs: [{}]\n  conditions:\n    - type: Ready\n      status: \"True\"\n",
            list.join(", ")
        );
        self.write(folder, &format!("{}\n{status}", self.text.trim_end()))
    }

    /// Replaces the file in one step, so that nobody reads half of it.
    fn write(&self, folder: &Path, text: &str) -> Result<(), DeploymentError> {
        let place = folder.join(self.path.with_extension(""));
        let path = with_suffix(&place, &format!("-{}.yaml", self.number));
        let draft = with_suffix(&place, &format!("-{}.draft", self.number));
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(DeploymentError::file("create", parent))?;
        fs::write(&draft, text).map_err(DeploymentError::file("write", &draft))?;
        fs::rename(&draft, &path).map_err(DeploymentError::file("replace", &path))
    }

    /// Says what is wrong with this manifest.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> DeploymentError {
        DeploymentError::Manifest { path: self.path.clone(), reason: reason.into() }
    }
}

impl Variable {
    /// The value: its own, or the field of the pod that it is taken from.
    pub(super) fn value(&self, pod: &Pod) -> String {
        let field = self.value_from.as_ref().map(|from| from.field_ref.field_path.as_str());
        match field {
            Some("metadata.name") => pod.metadata.name.clone(),
            Some("metadata.namespace") => pod.metadata.namespace.clone(),
            Some("spec.nodeName") => pod.spec.node_name.clone(),
            _ => self.value.clone(),
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The documents of a YAML stream that hold anything.
fn documents(text: &str) -> impl Iterator<Item = String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let is_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    documents.into_iter().filter(move |document| document.lines().any(is_content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_and_pods_understood() {
        let folder = tempfile::tempdir().unwrap();
        let text = "# first\n---\nkind: Service\nmetadata: {name: web}\n---\nkind: Pod\nmetadata: {name: p, namespace: \
                    n}\nspec:\n  nodeName: a1\n  containers:\n    - command: [serve]\n      env:\n        - name: \
                    POD\n          valueFrom: {fieldRef: {fieldPath: metadata.name}}\n        - {name: X, value: y}\n";
        fs::create_dir(folder.path().join("pods")).unwrap();
        fs::write(folder.path().join("pods/all.yaml"), text).unwrap();
        fs::write(folder.path().join("README.md"), "not: [a manifest").unwrap();
        let manifests = read(folder.path()).unwrap();
        assert_eq!(manifests.len(), 2);
        assert!(manifests[0].pod.is_none());
        let pod = manifests[1].pod.as_ref().unwrap();
        let env = &pod.spec.containers[0].env;
        assert_eq!((env[0].value(pod), env[1].value(pod)), ("p".to_owned(), "y".to_owned()));

        let copy = tempfile::tempdir().unwrap();
        let copy = copy.path();
        write_all(&manifests, copy).unwrap();
        manifests[1].write_ready(copy, &["10.1.1.10".parse().unwrap()]).unwrap();
        let written = fs::read_to_string(copy.join("pods/all-1.yaml")).unwrap();
        assert!(
            written.starts_with("kind: Pod") && written.contains("\nstatus:\n  phase: Running\n"),
            "{written}"
        );
        assert_eq!(read(copy).unwrap().len(), 2, "what was written is read again");
    }

    #[test]
    fn what_is_no_yaml_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bad.yaml"), "kind: [Pod").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("bad.yaml"));
    }
}

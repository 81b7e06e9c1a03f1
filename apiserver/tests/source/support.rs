//! A folder of manifests.

use std::fs;
use std::path::Path;

use landbridge_apiserver::objects::Objects;
use landbridge_apiserver::source::{Checked, validate};
use tempfile::TempDir;

pub(crate) fn write(dir: &TempDir, file: &str, text: &str) {
    let path = dir.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn check(text: &str) -> Checked {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "all.yaml", text);
    validate(dir.path()).unwrap()
}

/// The objects of manifests that are in order.
pub(crate) fn objects(text: &str) -> Objects {
    let checked = check(text);
    assert!(checked.problems.is_empty(), "{:?}", problems(&checked));
    checked.objects
}

pub(crate) fn problems(checked: &Checked) -> Vec<String> {
    checked.problems.iter().map(ToString::to_string).collect()
}

/// The one problem of a manifest.
pub(crate) fn problem(text: &str) -> String {
    let found = problems(&check(text));
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

pub(crate) fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
         spec:\n  nodeName: a1\n  containers: [{{name: c, image: i}}]\n"
    )
}

pub(crate) fn pod_names(objects: &Objects) -> Vec<String> {
    objects.pods.keys().map(|name| name.name.to_string()).collect()
}

pub(crate) fn demo(cluster: &str) -> Checked {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo").join(cluster);
    validate(&folder).unwrap()
}

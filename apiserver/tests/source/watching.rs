//! What happens while the folder changes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use landbridge_apiserver::objects::Objects;
use landbridge_apiserver::source::{Problem, Source};
use landbridge_kvstore_schema::ObjectName;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{pod, pod_names, write};

const DEADLINE: Duration = Duration::from_secs(20);

struct Watched {
    dir: TempDir,
    objects: watch::Receiver<Arc<Objects>>,
    problems: watch::Receiver<Arc<[Problem]>>,
    source: Source,
    stop: CancellationToken,
}

impl Watched {
    async fn start(dir: TempDir) -> Self {
        let stop = CancellationToken::new();
        let source = Source::start(dir.path().to_path_buf(), stop.clone()).await.unwrap();
        Self { dir, objects: source.objects(), problems: source.problems(), source, stop }
    }

    async fn until(&mut self, fits: impl FnMut(&Arc<Objects>) -> bool) {
        timeout(DEADLINE, self.objects.wait_for(fits)).await.expect("the objects follow the folder").unwrap();
    }

    async fn until_problem(&mut self, text: &str) {
        let fits =
            |problems: &Arc<[Problem]>| problems.iter().any(|problem| problem.to_string().contains(text));
        timeout(DEADLINE, self.problems.wait_for(fits)).await.expect("the problem is told").unwrap();
    }

    async fn until_well(&mut self) {
        let well = self.problems.wait_for(|problems| problems.is_empty());
        timeout(DEADLINE, well).await.expect("the problems go").unwrap();
    }

    fn pods(&self) -> Vec<String> {
        pod_names(&self.objects.borrow())
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.source.ended()).await.expect("watching ends");
    }
}

#[tokio::test]
async fn files_come_change_and_go() {
    let mut watched = Watched::start(tempfile::tempdir().unwrap()).await;
    assert!(watched.pods().is_empty());
    write(&watched.dir, "new/folder/pods.yaml", &pod("p"));
    watched.until(|objects| pod_names(objects) == ["p"]).await;
    // In a folder that was not there when watching began.
    write(&watched.dir, "new/folder/more.yaml", &pod("q"));
    watched.until(|objects| pod_names(objects) == ["p", "q"]).await;
    fs::rename(watched.dir.path().join("new/folder/more.yaml"), watched.dir.path().join("moved.yml"))
        .unwrap();
    fs::remove_file(watched.dir.path().join("new/folder/pods.yaml")).unwrap();
    watched.until(|objects| pod_names(objects) == ["q"]).await;
    watched.end().await;
}

#[tokio::test]
async fn a_half_written_file_withdraws_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = format!("{}---\n{}", pod("p"), pod("q"));
    write(&dir, "pods.yaml", &whole);
    let mut watched = Watched::start(dir).await;

    write(&watched.dir, "pods.yaml", &whole[..whole.len() - 30]);
    watched.until_problem("the 2 objects that it had stay in force").await;
    assert_eq!(watched.pods(), ["p", "q"]);
    write(&watched.dir, "pods.yaml", "");
    watched.until_problem("remove the file to withdraw what it had").await;
    assert_eq!(watched.pods(), ["p", "q"]);
    fs::write(watched.dir.path().join("pods.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    watched.until_problem("cannot be read").await;
    assert_eq!(watched.pods(), ["p", "q"]);
    assert!(watched.objects.borrow().whole);

    write(&watched.dir, "pods.yaml", &pod("q"));
    watched.until(|objects| pod_names(objects) == ["q"]).await;
    watched.until_well().await;
    watched.end().await;
}

#[tokio::test]
async fn an_object_that_breaks_a_rule_keeps_its_last_good_version() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "pods.yaml", &format!("{}---\n{}", pod("p"), pod("q")));
    let mut watched = Watched::start(dir).await;
    let bad = pod("p").replace("nodeName: a1", "nodeName: A1");
    let text =
        format!("{bad}---\n{}---\n{}", pod("q").replace("a1", "a2"), bad.replace("name: p", "name: new"));
    write(&watched.dir, "pods.yaml", &text);
    watched.until_problem("its last good version stays in force").await;
    watched.until_problem("Pod shop/new: spec.nodeName").await;
    let nodes: Vec<_> = watched.objects.borrow().pods.values().map(|pod| pod.node.clone().unwrap()).collect();
    assert_eq!(nodes.iter().map(ObjectName::as_str).collect::<Vec<_>>(), ["a1", "a2"]);
    assert!(watched.objects.borrow().whole, "what was never in force is not unknown");
    watched.end().await;
}

#[tokio::test]
async fn what_is_broken_from_the_start_is_unknown_until_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "good.yaml", &pod("p"));
    write(&dir, "bad.yaml", "kind: [");
    let mut watched = Watched::start(dir).await;
    assert_eq!(watched.pods(), ["p"]);
    assert!(!watched.objects.borrow().whole);
    write(&watched.dir, "bad.yaml", &pod("q"));
    watched.until(|objects| objects.whole && pod_names(objects) == ["p", "q"]).await;
    watched.end().await;
}

#[tokio::test]
async fn a_folder_without_a_manifest_withdraws_nothing() {
    let mut watched = Watched::start(tempfile::tempdir().unwrap()).await;
    // As when a folder is mounted late.
    assert!(!watched.objects.borrow().whole);
    watched.until_problem("the folder has no manifest").await;
    write(&watched.dir, "pods.yaml", &pod("p"));
    watched.until(|objects| objects.whole && pod_names(objects) == ["p"]).await;
    watched.until_well().await;

    fs::remove_file(watched.dir.path().join("pods.yaml")).unwrap();
    watched.until_problem("the 1 objects that it had stay in force").await;
    assert_eq!(watched.pods(), ["p"]);
    // Unless somebody says that there is nothing.
    write(&watched.dir, "empty.yaml", "# nothing\n");
    watched.until(|objects| objects.whole && objects.pods.is_empty()).await;
    watched.end().await;
}

#[tokio::test]
async fn a_link_that_leads_nowhere_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "real/pods.text", &pod("p"));
    write(&dir, "other.yaml", &pod("q"));
    std::os::unix::fs::symlink("real/pods.text", dir.path().join("pods.yaml")).unwrap();
    let mut watched = Watched::start(dir).await;
    fs::remove_file(watched.dir.path().join("real/pods.text")).unwrap();
    watched.until_problem("cannot be read").await;
    assert_eq!(watched.pods(), ["p", "q"]);
    watched.end().await;
}

#[tokio::test]
async fn a_folder_that_goes_withdraws_nothing() {
    let parent = tempfile::tempdir().unwrap();
    write(&parent, "manifests/p.yaml", &pod("p"));
    let dir = parent.path().join("manifests");
    let stop = CancellationToken::new();
    let source = Source::start(dir.clone(), stop.clone()).await.unwrap();
    let (objects, mut problems) = (source.objects(), source.problems());
    fs::rename(&dir, parent.path().join("gone")).unwrap();
    let told = problems
        .wait_for(|problems| problems.iter().any(|problem| problem.message.contains("cannot be read")));
    timeout(DEADLINE, told).await.expect("the problem is told").unwrap();
    assert_eq!(pod_names(&objects.borrow()), ["p"]);
    stop.cancel();
    source.ended().await;
}

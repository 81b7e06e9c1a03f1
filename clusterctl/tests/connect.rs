//! Connecting is a transaction: it works as a whole, or both clusters stay as they were.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use landbridge_apiserver_api::v1::ConfirmPeerRequest;
use landbridge_apiserver_api::v1::admin_client::AdminClient;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// How long a program may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Apiservers of clusters without nodes, on loopback, and a configuration that names them.
struct Clusters {
    folder: TempDir,
    running: Vec<Child>,
}

impl Clusters {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("clusterctl.yaml"), "clusters:\n").unwrap();
        Self { folder, running: Vec::new() }
    }

    /// Names a cluster without starting it.
    fn declare(&self, context: &str, cluster: &str) {
        let path = self.folder.path().join("clusterctl.yaml");
        let config = fs::read_to_string(&path).unwrap();
        let admin = self.admin_socket(cluster);
        fs::write(path, format!("{config}  - name: {context}\n    admin: unix://{}\n", admin.display()))
            .unwrap();
    }

    fn start(mut self, cluster: &str, id: u32, pod_range: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let pid = std::process::id();
        // Every process of this machine and every cluster of it has an address of its own on loopback.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 1;
        let address = format!("127.{}.{}.{number}:2379", pid >> 8 & 0x7f | 0x80, pid & 0xff);
        self.declare(cluster, cluster);
        let data = self.data(cluster);
        let manifests = self.folder.path().join(format!("{cluster}-manifests"));
        fs::create_dir(&manifests).unwrap();
        let log = fs::File::create(self.folder.path().join(format!("{cluster}.log"))).unwrap();
        let mut child =
            Command::new(Path::new(env!("CARGO_BIN_EXE_clusterctl")).with_file_name("landbridge-apiserver"))
                .args(["serve", "--cluster", cluster, "--cluster-id", &id.to_string()])
                .args(["--listen", &address, "--advertise", &format!("https://{address}")])
                .args(["--pod-range", pod_range, "--service-range", "10.96.0.0/16"])
                .arg("--data-dir")
                .arg(&data)
                .arg("--manifests")
                .arg(&manifests)
                .arg("--admin-socket")
                .arg(self.admin_socket(cluster))
                .stderr(log)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
        let deadline = Instant::now() + START_TIMEOUT;
        while std::os::unix::net::UnixStream::connect(self.admin_socket(cluster)).is_err() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {}", self.log(cluster));
            std::thread::sleep(Duration::from_millis(10));
        }
        self.running.push(child);
        self
    }

    fn data(&self, cluster: &str) -> PathBuf {
        self.folder.path().join(cluster)
    }

    fn admin_socket(&self, cluster: &str) -> PathBuf {
        self.folder.path().join(format!("{cluster}.sock"))
    }

    fn log(&self, cluster: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{cluster}.log"))).unwrap()
    }

    fn clusterctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusterctl"));
        command.args(args).arg("--config").arg(self.folder.path().join("clusterctl.yaml"));
        command.output().unwrap()
    }

    /// Runs a command that fails, and returns its error.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.clusterctl(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Everything in a cluster that a connect could have changed: what status shows, and its files.
    fn state(&self, cluster: &str) -> (serde_json::Value, Vec<PathBuf>) {
        let output = self.clusterctl(&["status", cluster, "-o", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let peers = report["clusters"][0]["peers"].clone();
        assert!(peers.is_array(), "{report}");
        let folder = self.data(cluster).join("peers");
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        files.sort();
        (peers, files)
    }

    /// A connect of a and b that fails, and changes neither; returns the error.
    fn refused(&self, args: &[&str]) -> String {
        let before = ["a", "b"].map(|cluster| self.state(cluster));
        let error = self.fails(&[&["connect", "a", "b"], args].concat());
        assert_eq!(["a", "b"].map(|cluster| self.state(cluster)), before, "{error}");
        error
    }
}

impl Drop for Clusters {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_cluster_that_is_down_is_named_and_the_other_stays_as_it_is() {
    let clusters = Clusters::new().start("a", 1, "10.1.0.0/16");
    clusters.declare("b", "b");
    let before = clusters.state("a");
    for pair in [["a", "b"], ["b", "a"]] {
        let error = clusters.fails(&["connect", pair[0], pair[1]]);
        assert!(
            error.contains("cluster b does not answer") && error.contains("landbridge-apiserver"),
            "{error}"
        );
    }
    assert_eq!(clusters.state("a"), before);
}

#[test]
fn clusters_that_do_not_fit_together_are_refused_with_the_reason() {
    let twins = Clusters::new().start("a", 1, "10.1.0.0/16").start("b", 1, "10.2.0.0/16");
    let error = twins.refused(&[]);
    assert!(error.contains("both have id 1"), "{error}");

    let overlapping = Clusters::new().start("a", 1, "10.1.0.0/16").start("b", 2, "10.1.128.0/17");
    let error = overlapping.refused(&[]);
    assert!(error.contains("10.1.0.0/16") && error.contains("10.1.128.0/17"), "{error}");
}

#[test]
fn a_cluster_is_not_connected_to_itself() {
    let clusters = Clusters::new().start("a", 1, "10.1.0.0/16");
    clusters.declare("b", "a");
    let error = clusters.refused(&[]);
    assert!(error.contains("both addresses lead to cluster a"), "{error}");
}

/// Calls the admin API of a cluster.
fn call<T>(
    clusters: &Clusters,
    cluster: &str,
    request: impl AsyncFnOnce(AdminClient<Channel>) -> Result<T, Status>,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = format!("unix://{}", clusters.admin_socket(cluster).display());
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        request(AdminClient::new(channel)).await.unwrap()
    })
}

/// Starts a connect of a and b, which have no nodes, interrupts it while it verifies, and returns what it said.
fn interrupted(clusters: &Clusters, while_it_verifies: impl FnOnce()) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterctl"));
    command.args(["connect", "a", "b", "--config"]).arg(clusters.folder.path().join("clusterctl.yaml"));
    let mut connect = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(connect.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "Verify"));
    while_it_verifies();
    assert!(Command::new("kill").args(["-INT", &connect.id().to_string()]).status().unwrap().success());
    let output = connect.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_connect_that_is_interrupted_is_taken_back_unless_somebody_else_made_it_one() {
    let clusters = Clusters::new().start("a", 1, "10.1.0.0/16").start("b", 2, "10.2.0.0/16");
    let before = ["a", "b"].map(|cluster| clusters.state(cluster));
    let said = interrupted(&clusters, || ());
    assert!(said.contains("interrupted") && said.contains("a is as it was before"), "{said}");
    assert_eq!(["a", "b"].map(|cluster| clusters.state(cluster)), before);

    let said = interrupted(&clusters, || {
        for (cluster, peer) in [("a", "b"), ("b", "a")] {
            let peer = peer.to_owned();
            call(&clusters, cluster, async |mut api| api.confirm_peer(ConfirmPeerRequest { peer }).await);
        }
    });
    assert!(said.contains("a keeps b"), "{said}");
    for (cluster, peer) in [("a", "b"), ("b", "a")] {
        let (peers, _) = clusters.state(cluster);
        assert_eq!((&peers[0]["name"], &peers[0]["confirmed"]), (&peer.into(), &true.into()), "{peers}");
    }
}

#[test]
fn a_cluster_that_is_down_is_not_forgotten_by_a_name_that_is_not_its_own() {
    let mut clusters = Clusters::new().start("a", 1, "10.1.0.0/16").start("b", 2, "10.2.0.0/16");
    interrupted(&clusters, || {
        for (cluster, peer) in [("a", "b"), ("b", "a")] {
            let peer = peer.to_owned();
            call(&clusters, cluster, async |mut api| api.confirm_peer(ConfirmPeerRequest { peer }).await);
        }
    });
    clusters.declare("far-away", "b");
    let mut b = clusters.running.pop().unwrap();
    b.kill().unwrap();
    b.wait().unwrap();
    let error = clusters.fails(&["disconnect", "a", "far-away"]);
    assert!(
        error.contains("a has no peer called far-away") && error.contains("clusterctl status a"),
        "{error}"
    );
    let output = clusters.clusterctl(&["disconnect", "a", "b"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(clusters.state("a").0, serde_json::json!([]));
}

#[test]
fn a_time_that_clusters_would_not_wait_for_is_a_mistake_of_the_callers() {
    let clusters = Clusters::new();
    for time in ["31m", "500000000000years", "soon"] {
        let output = clusters.clusterctl(&["connect", "a", "b", "--timeout", time]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_connect_that_cannot_be_verified_is_taken_back() {
    let clusters = Clusters::new().start("a", 1, "10.1.0.0/16").start("b", 2, "10.2.0.0/16");
    let checked = clusters.clusterctl(&["connect", "a", "b", "--dry-run"]);
    assert!(checked.status.success(), "{checked:?}");

    // Without nodes no packet crosses.
    let error = clusters.refused(&["--timeout", "1s"]);
    assert!(error.contains("has no nodes") && error.contains("as it was before"), "{error}");
}

//! The program on the command line.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge-apiserver"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn serve(folder: &Path, port: u16) -> Command {
    let mut command = program();
    command.args(["serve", "--cluster", "paris", "--cluster-id", "1", "--data-dir"]).arg(folder.join("data"));
    command.arg("--manifests").arg(folder.join("manifests"));
    command.args([
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--advertise",
        &format!("https://127.0.0.1:{port}"),
    ]);
    command.arg("--admin-socket").arg(folder.join("admin.sock"));
    command.args(["--pod-range", "10.1.0.0/16", "--service-range", "10.96.0.0/16"]);
    command
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn error_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_program_serves_issues_certificates_and_ends_in_order() {
    let folder = folder();
    let mut running = Running(serve(folder.path(), free_port()).stderr(Stdio::inherit()).spawn().unwrap());
    wait_until("the admin socket answers", || UnixStream::connect(folder.path().join("admin.sock")).is_ok());

    let certificate = |user: &str| {
        let mut command = program();
        command.args(["certificate", "--user", user, "--data-dir"]).arg(folder.path().join("data"));
        command.arg("--out").arg(folder.path().join("out")).output().unwrap()
    };
    assert!(certificate("agent-a1").status.success());
    for file in ["ca.crt", "client.crt", "client.key"] {
        assert!(folder.path().join("out").join(file).exists(), "{file}");
    }
    assert!(error_of(&certificate("remote-lyon")).contains("clusterctl connect"));
    assert!(error_of(&certificate("admin-lyon")).contains("no user of cluster paris"));

    // The same folder twice, also with another port.
    let second = serve(folder.path(), free_port()).output().unwrap();
    assert!(error_of(&second).contains("somebody answers at"), "{second:?}");

    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(!folder.path().join("admin.sock").exists());
}

#[test]
fn what_is_in_the_way_is_named_before_anything_is_changed() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = error_of(&serve(folder.path(), port).output().unwrap());
    assert!(error.contains("--listen: cannot listen at 127.0.0.1:"), "{error}");
    std::fs::remove_dir(folder.path().join("manifests")).unwrap();
    let error = error_of(&serve(folder.path(), free_port()).output().unwrap());
    assert!(error.contains("--manifests:") && error.contains("is not a folder"), "{error}");
    let error = error_of(&serve(folder.path(), free_port()).args(["--max-clusters", "7"]).output().unwrap());
    assert!(error.contains("--max-clusters: 7"), "{error}");
    assert!(!folder.path().join("data").exists());
    assert_eq!(program().args(["serve", "--nonsense"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn manifests_are_checked() {
    let folder = folder();
    let check = || {
        let mut command = program();
        command.args(["check", "--manifests"]).arg(folder.path().join("manifests")).output().unwrap()
    };
    std::fs::write(
        folder.path().join("manifests/n.yaml"),
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n",
    )
    .unwrap();
    assert!(check().status.success());
    std::fs::write(
        folder.path().join("manifests/x.yaml"),
        "apiVersion: v1\nkind: Node\nmetadata: {name: A}\n",
    )
    .unwrap();
    let output = check();
    assert!(error_of(&output).contains("1 problems"));
    assert!(String::from_utf8(output.stdout).unwrap().contains("x.yaml"));
}

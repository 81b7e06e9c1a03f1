//! The binary: how it starts, says that it is there, and ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use landbridge_lab::requirement::{Requirement, met};

fn store(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge-kvstore"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
    command
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

fn terminate(running: &mut Running) -> std::process::ExitStatus {
    let killed = Command::new("kill").arg(running.0.id().to_string()).status().unwrap();
    assert!(killed.success());
    running.0.wait().unwrap()
}

fn etcdctl(endpoint: &str, args: &[&str]) -> Output {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(args).output().unwrap()
}

#[test]
fn a_service_manager_hears_that_it_is_ready_and_sigterm_ends_it_in_order() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let (url, data) = (free_url(), dir.path().join("data"));
    for round in 0..2 {
        let mut command = store(&["-data-dir", data.to_str().unwrap(), "--listen-client-urls", &url]);
        command.env("NOTIFY_SOCKET", &path).env("ETCD_ADVERTISE_CLIENT_URLS", &url).stderr(Stdio::null());
        let mut running = Running(command.spawn().unwrap());
        let mut said = [0; 64];
        let length = manager.recv(&mut said).unwrap();
        assert_eq!(&said[..length], b"READY=1\n");
        if round == 0 {
            assert_eq!(etcdctl(&url, &["put", "k", "v"]).stdout, b"OK\n");
        }
        assert_eq!(etcdctl(&url, &["get", "k", "--print-value-only"]).stdout, b"v\n");
        assert_eq!(terminate(&mut running).code(), Some(0));
    }
}

#[test]
fn what_it_does_not_understand_ends_it_with_the_code_of_etcd() {
    let output = store(&["--bogus"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("flag provided but not defined: -bogus"));
    let output = store(&["--election-timeout=200"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["error"].as_str().unwrap().contains("at least as 5 times"), "{line}");
}

#[test]
fn help_tells_of_every_flag_of_etcd() {
    let help = String::from_utf8(store(&["--help"]).output().unwrap().stdout).unwrap();
    let Some(etcd) = landbridge_lab::requirement::etcd().filter(|_| met(&[Requirement::Etcd])) else {
        return;
    };
    let output = Command::new(etcd).arg("--help").output().unwrap();
    let theirs =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let flags = theirs.lines().filter_map(|line| line.strip_prefix("  --")?.split_whitespace().next());
    let missing: Vec<&str> = flags.filter(|flag| !help.contains(&format!("  --{flag}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

//! What etcd's users type, and what they are told.

use std::process::{Command, Stdio};

use landbridge_lab::requirement::{Requirement, etcd, met};

use super::quick;
use crate::store::{Client, Etcd, Ours};

/// In order, from an empty store on.
const SCRIPT: &[&str] = &[
    "auth enable",
    "role add root",
    "user add root:secret",
    "user add root:secret",
    "user grant-role root root",
    "user add ann:secret",
    "user add cert --no-password",
    "user list",
    "role add reader",
    "role add writer",
    "role grant-permission reader read a b",
    "role grant-permission reader --prefix=true read p/",
    "role grant-permission writer --from-key=true readwrite w",
    "role grant-permission writer write x",
    "role grant-permission writer write b a",
    "role grant-permission none read k",
    "role list",
    "role get reader",
    "role get writer",
    "role get none",
    "user grant-role ann reader",
    "user grant-role ann writer",
    "user grant-role ann none",
    "user get ann",
    "user get ann --detail",
    "user get none",
    "auth enable",
    "user list",
    "--user root:secret user list",
    "--user root:wrong user list",
    "--user none:secret user list",
    "--user ann:secret user list",
    "--user ann:secret user get ann",
    "--user ann:secret user get root",
    "--user ann:secret role get reader",
    "--user root:secret put a one",
    "--user root:secret put z two",
    "--user ann:secret get a",
    "--user ann:secret get z",
    "--user ann:secret get --prefix p/",
    "--user ann:secret get --prefix p",
    "--user ann:secret get --from-key w",
    "--user ann:secret put a one",
    "--user ann:secret put w/1 three",
    "--user ann:secret del w/1",
    "--user ann --password secret get a",
    "get a",
    "put a one",
    "--user root:secret user revoke-role ann writer",
    "--user ann:secret put w/1 three",
    "--user root:secret role revoke-permission reader a b",
    "--user root:secret role revoke-permission reader a b",
    "--user root:secret role revoke-permission writer --from-key=true w",
    "--user root:secret role get writer",
    "--user root:secret role delete writer",
    "--user root:secret user delete ann",
    "--user ann:secret get a",
    "--user root:secret user delete root",
    "--user root:secret user revoke-role root root",
    "--user root:secret role delete root",
    "--user ann:secret auth disable",
    "--user root:secret auth disable",
    "--user root:secret auth disable",
    "auth disable",
    "get a",
];

fn typed(endpoint: &str) -> String {
    let run = |line: &str| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint, "--command-timeout=10s"]);
        let output = command.args(line.split_whitespace()).stdin(Stdio::null()).output().unwrap();
        // The log lines of the client name times and addresses.
        let text = |bytes: &[u8]| -> String {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let lines = text.split_inclusive('\n');
            lines.filter(|line| !line.contains("\"endpoint") && !line.contains("retry")).collect()
        };
        let (said, failed) = (text(&output.stdout), text(&output.stderr));
        format!("$ {line}\n{said}{failed}{:?}\n", output.status.code())
    };
    SCRIPT.iter().map(|line| run(line)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_says_the_same_of_ours_and_of_etcd() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let ours = Ours::start_with_users(tempfile::tempdir().unwrap(), quick(), None).await;
    let etcd = Etcd::start_with(&etcd().unwrap(), &["--bcrypt-cost", "4"]);
    Client::connect(&etcd.endpoint, "").await;
    let endpoints = [ours.endpoint("http"), etcd.endpoint.clone()];
    let said = tokio::task::spawn_blocking(move || endpoints.map(|endpoint| typed(&endpoint)));
    let [ours_said, etcd_said] = said.await.unwrap();
    super::assert_lines(&ours_said, &etcd_said, "ours and etcd's");
    assert!(ours_said.contains("Authentication Enabled"), "{ours_said}");
    ours.stop().await;
}

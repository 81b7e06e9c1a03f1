//! The command line of etcd's users, and the client crate, against our store.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use etcd_client::{Compare, CompareOp, ConnectOptions, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use landbridge_kvstore_server::AccessRules;
use landbridge_lab::requirement::{Requirement, met};

use crate::pki::{Ca, Files};
use crate::store::{Ours, soon};

fn etcdctl(endpoint: &str, ca: &Ca, client: &Files, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint, "--command-timeout=10s"]);
    command
        .arg("--cacert")
        .arg(ca.path())
        .arg("--cert")
        .arg(&client.certificate)
        .arg("--key")
        .arg(&client.key);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_finds_everything_in_its_place() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let ca = Ca::new("ours");
    let ours = Ours::start(AccessRules::Open, Some(ca.server_files())).await;
    let (endpoint, client) = (ours.endpoint("https"), ca.sign("client"));
    let etcdctl = move |args: &[&str]| etcdctl(&endpoint, &ca, &client, args);
    tokio::task::spawn_blocking(move || {
        let run = |args: &[&str]| text(etcdctl(args).output().unwrap());
        assert_eq!(run(&["put", "a/1", "one"]), "OK\n");
        let mut watch = etcdctl(&["watch", "--prefix", "a/", "--rev=2", "--prev-kv"]).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), ["PUT", "a/1", "one"]);

        let granted = run(&["lease", "grant", "60"]);
        let lease = granted.split_whitespace().nth(1).unwrap();
        assert_eq!(run(&["put", "a/2", "two", "--lease", lease]), "OK\n");
        assert_eq!(run(&["get", "--prefix", "a/", "--print-value-only"]), "one\ntwo\n");
        assert!(run(&["lease", "timetolive", "--keys", lease]).contains("a/2"));
        assert!(run(&["lease", "keep-alive", "--once", lease]).contains("keepalived with TTL(60)"));
        run(&["lease", "revoke", lease]);
        assert_eq!(run(&["get", "a/2"]), "");
        assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), ["PUT", "a/2", "two"]);
        assert_eq!(lines.by_ref().take(4).collect::<Vec<_>>(), ["DELETE", "a/2", "two", "a/2"]);

        let mut txn = etcdctl(&["txn"]).stdin(Stdio::piped()).spawn().unwrap();
        let script = "value(\"a/1\") = \"one\"\n\nput a/1 two\n\nget a/1\n\n";
        std::io::Write::write_all(&mut txn.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert_eq!(text(txn.wait_with_output().unwrap()), "SUCCESS\n\nOK\n");
        assert_eq!(run(&["del", "--prefix", "a/"]), "1\n");
        assert!(run(&["endpoint", "health"]).is_empty(), "it speaks to the error output");
        assert!(run(&["endpoint", "status", "--write-out=json"]).contains("\"version\":\"3.5."));
        assert!(run(&["member", "list"]).contains("https://store.example:2379"));
        run(&["compact", "2"]);
        assert!(!etcdctl(&["compact", "2"]).output().unwrap().status.success());
        watch.kill().unwrap();
        watch.wait().unwrap();
    })
    .await
    .unwrap();
    ours.stop().await;
}

#[tokio::test]
async fn the_client_crate_finds_everything_in_its_place() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let options = ConnectOptions::new().with_require_leader(true);
    let mut client = etcd_client::Client::connect([ours.endpoint("http")], Some(options)).await.unwrap();
    let mut watch = client.watch("k", Some(WatchOptions::new().with_prefix())).await.unwrap();
    let lease = client.lease_grant(60, None).await.unwrap().id();
    client.put("k1", "v1", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    let txn = Txn::new()
        .when([Compare::version("k2", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("k2", "v2", None)])
        .or_else([TxnOp::get("k2", None)]);
    assert!(client.txn(txn.clone()).await.unwrap().succeeded());
    assert!(!client.txn(txn).await.unwrap().succeeded());
    let response = client.get("k", Some(GetOptions::new().with_prefix().with_limit(1))).await.unwrap();
    assert!(response.count() == 2 && response.more() && response.kvs()[0].lease() == lease);
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(soon(kept.message()).await.unwrap().unwrap().ttl(), 60);
    client.lease_revoke(lease).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        let response = soon(watch.message()).await.unwrap().unwrap();
        events
            .extend(response.events().iter().map(|event| event.kv().unwrap().key_str().unwrap().to_owned()));
    }
    assert_eq!(events, ["k1", "k2", "k1"]);
    ours.stop().await;
}

//! `landbridge-kvstore snapshot`, on what etcdctl saved.

use std::fs;
use std::path::Path;
use std::process::Output;

use landbridge_lab::requirement::{Requirement, met};
use serde_json::Value;

use crate::program::{Running, etcdctl, free_url, store};

fn etcdctl_ok(url: &str, args: &[&str]) -> String {
    let output = etcdctl(url, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn everything(url: &str) -> Value {
    serde_json::from_str(&etcdctl_ok(url, &["get", "", "--prefix", "-w", "json"])).unwrap()
}

fn snapshot(word: &str, file: &Path, args: &[&str]) -> Output {
    store(&["snapshot", word, file.to_str().unwrap()]).args(args).output().unwrap()
}

/// What it says of why it refuses.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    text
}

#[test]
fn a_saved_snapshot_becomes_a_new_cluster_with_the_same_keys_and_revisions() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.db");
    let url = free_url();
    let mut running = Running::start(&dir.path().join("one"), &url, &[]);
    for number in 0..8 {
        etcdctl_ok(&url, &["put", &format!("key {}", number % 5), &format!("value {number}")]);
    }
    etcdctl_ok(&url, &["del", "key 4"]);
    let before = everything(&url);
    etcdctl_ok(&url, &["snapshot", "save", file.to_str().unwrap()]);
    etcdctl_ok(&url, &["put", "later", "is not in it"]);
    assert_eq!(running.terminate().code(), Some(0));

    let status = snapshot("status", &file, &["-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let length = fs::metadata(&file).unwrap().len();
    assert_eq!((&status["revision"], &status["totalKey"]), (&10.into(), &4.into()));
    assert_eq!(status["totalSize"], length);
    let table = String::from_utf8(snapshot("status", &file, &["-o", "table"]).stdout).unwrap();
    assert!(table.contains("|       10 |          4 |"), "{table}");
    assert!(snapshot("verify", &file, &[]).status.success());

    let two = dir.path().join("two");
    let restore = |dir: &Path, more: &[&str]| {
        let args =
            [&["--data-dir", dir.to_str().unwrap(), "--initial-advertise-peer-urls", "http://b:1"], more];
        snapshot("restore", &file, &args.concat())
    };
    let output = restore(&two, &["--name", "b", "--initial-cluster", "b=http://b:1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(refusal(&restore(&two, &[])).contains("is there already"));
    let mut running = Running::start(&two, &url, &["--name", "b"]);
    let after = everything(&url);
    assert_eq!(after["kvs"], before["kvs"]);
    assert_eq!(after["header"]["revision"], before["header"]["revision"]);
    assert_ne!(after["header"]["cluster_id"], before["header"]["cluster_id"]);
    let members = etcdctl_ok(&url, &["member", "list"]);
    assert!(members.contains(", b, http://b:1, "), "{members}");
    // History is kept, too.
    assert_eq!(etcdctl_ok(&url, &["get", "key 4", "--rev=9", "--print-value-only"]), "value 4\n");
    etcdctl_ok(&url, &["put", "next", "v"]);
    assert_eq!(everything(&url)["header"]["revision"], 11);
    assert_eq!(running.terminate().code(), Some(0));

    let three = dir.path().join("three");
    assert!(refusal(&restore(&three, &["--bump-revision", "1000"])).contains("together"));
    let output = restore(&three, &["--bump-revision", "1000", "--mark-compacted"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut running = Running::start(&three, &url, &[]);
    let raised = everything(&url);
    assert_eq!((&raised["kvs"], &raised["header"]["revision"]), (&before["kvs"], &1010.into()));
    let watch = etcdctl(&url, &["watch", "key 1", "--rev=5"]);
    assert!(String::from_utf8_lossy(&watch.stderr).contains("required revision has been compacted"));
    assert_eq!(running.terminate().code(), Some(0));

    let whole = fs::read(&file).unwrap();
    for at in [0, whole.len() / 3, whole.len() - 40, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        assert!(refusal(&snapshot("verify", &file, &[])).contains("was not copied whole"), "{at}");
        let four = dir.path().join("four");
        assert!(refusal(&restore(&four, &[])).contains("was not copied whole"), "{at}");
        assert!(!four.exists());
    }
    fs::write(&file, &whole[..whole.len() - 512]).unwrap();
    assert!(refusal(&snapshot("status", &file, &[])).contains("was not copied whole"));
    assert!(refusal(&snapshot("status", &dir.path().join("nothing"), &[])).contains("cannot open"));
}

#[test]
fn what_a_snapshot_command_does_not_understand_ends_it_with_code_2() {
    for args in [&["snapshot"][..], &["snapshot", "verify"], &["snapshot", "restore", "f", "--bogus"]] {
        assert_eq!(store(args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
    let help = store(&["--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("landbridge-kvstore snapshot"));
}

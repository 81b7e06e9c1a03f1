//! What the machine lacks is named in one line, before anything changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use landbridge_lab::LabName;
use landbridge_lab::requirement::{Requirement, met};

const CLUSTERCTL: &str = env!("CARGO_BIN_EXE_clusterctl");
/// The user `nobody` of every distribution.
const NOBODY: u32 = 65_534;

/// The one line that a failed command prints.
fn error_of(output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    error
}

/// Runs `demo up` in a mount namespace of its own, after `changes` to the mounts.
fn up_after(changes: &str, lab: &LabName) -> Output {
    let script = format!("{changes}\nexec {CLUSTERCTL} demo up --lab {lab}");
    Command::new("unshare").args(["--mount", "sh", "-ec", &script]).output().unwrap()
}

fn assert_nothing_left(lab: &LabName) {
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> =
        namespaces.filter(|e| e.file_name().to_string_lossy().contains(lab.as_str())).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!Path::new("/var/lib/landbridge/lab").join(lab.as_str()).exists());
}

#[test]
fn an_ordinary_user_is_told_to_use_sudo() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    // A copy, since the build folder may be inside a home that others cannot enter.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("clusterctl");
    fs::copy(CLUSTERCTL, &copy).unwrap();
    let error = error_of(Command::new(&copy).args(["demo", "up"]).uid(NOBODY).output().unwrap());
    assert_eq!(error, "error: labs need root: run the command again with sudo\n");
}

#[test]
fn an_old_kernel_is_named() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = LabName::unique("kernel").unwrap();
    let output = Command::new("setarch")
        .args(["--uname-2.6", CLUSTERCTL, "demo", "up", "--lab", lab.as_str()])
        .output();
    let error = error_of(output.unwrap());
    assert!(error.starts_with("error: labs need Linux 5.14 or newer, this is 2.6."), "{error}");
    assert_nothing_left(&lab);
}

#[test]
fn a_missing_cgroup_v2_is_named_with_the_command_that_mounts_it() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = LabName::unique("cgroup").unwrap();
    let unmount = "grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5 | xargs -n1 umount -l";
    let error = error_of(up_after(unmount, &lab));
    assert!(error.contains("cgroup v2") && error.contains("mount -t cgroup2"), "{error}");
    assert_nothing_left(&lab);
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = LabName::unique("disk").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    // Too small from the start; with room for the check, but not for the first file; and not for the last.
    for fill in ["size=64k", "size=2m,nr_inodes=3", "size=2m,nr_inodes=5"] {
        let changes = format!("mount -t tmpfs -o {fill} none {path}; export LANDBRIDGE_LAB_DIR={path}");
        let error = error_of(up_after(&changes, &lab));
        assert!(error.starts_with(&format!("error: no space left on the disk of {path}")), "{error}");
        assert!(error.contains("LANDBRIDGE_LAB_DIR"), "{error}");
        assert_nothing_left(&lab);
    }
}

#[test]
fn ctrl_c_removes_the_lab_of_the_tour() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let mut tour = Command::new(CLUSTERCTL).args(["demo", "run"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tour.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("each a network namespace")));
    let prefix = format!("lb.tour-{}-", tour.id());
    let left = || {
        let entries = fs::read_dir("/run/netns").unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    assert!(left() > 0);
    assert!(Command::new("kill").args(["-INT", &tour.id().to_string()]).status().unwrap().success());
    assert_eq!(tour.wait().unwrap().signal(), Some(2));
    assert_eq!(left(), 0);
}

//! What the machine lacks is named in one line, before anything changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{LabName, traces};

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
    assert_eq!(traces(lab), [""; 0]);
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
    // Too small from the start; with room for the check, but for no folder.
    for fill in ["size=64k", "size=2m,nr_inodes=1"] {
        let changes = format!("mount -t tmpfs -o {fill} none {path}; export LANDBRIDGE_LAB_DIR={path}");
        let error = error_of(up_after(&changes, &lab));
        assert!(error.starts_with(&format!("error: no space left on the disk of {path}")), "{error}");
        assert!(error.contains("LANDBRIDGE_LAB_DIR"), "{error}");
        assert_nothing_left(&lab);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}

#[test]
fn a_folder_of_somebody_else_is_neither_used_nor_removed() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = LabName::unique("stranger").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(lab.as_str()).join("file");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "precious").unwrap();
    let run = |args: &[&str]| {
        let lab = ["--lab", lab.as_str()];
        let named = if args == ["demo", "clean"] { &lab[..0] } else { &lab[..] };
        Command::new(CLUSTERCTL)
            .args(args)
            .args(named)
            .env("LANDBRIDGE_LAB_DIR", folder.path())
            .output()
            .unwrap()
    };
    assert!(error_of(run(&["demo", "up"])).contains("belongs to no lab"));
    assert!(error_of(run(&["demo", "down"])).contains("no lab is named"));
    assert!(run(&["demo", "clean"]).status.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_nothing_left(&lab);
}

/// A signal may come before, while or after a lab to be kept is built: it is whole or it is gone.
#[test]
fn ctrl_c_during_up_leaves_a_whole_lab_or_none() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    for milliseconds in (0..300).step_by(20) {
        let lab = LabName::unique("halfway").unwrap();
        let mut up = Command::new(CLUSTERCTL);
        up.args(["demo", "up", "--lab", lab.as_str(), "--nodes", "4"]).stdout(Stdio::null());
        let mut up = up.spawn().unwrap();
        // Spread over the whole start on purpose: there is no condition to wait for.
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        let sent = Command::new("kill").args(["-INT", &up.id().to_string()]).status().unwrap().success();
        let status = up.wait().unwrap();
        assert!(!sent || status.success() || status.signal() == Some(2), "{status} after {milliseconds} ms");
        let down = Command::new(CLUSTERCTL).args(["demo", "down", "--lab", lab.as_str()]).output().unwrap();
        if !down.status.success() {
            assert!(error_of(down).contains("no lab is named"), "after {milliseconds} ms");
            assert!(!status.success(), "after {milliseconds} ms");
        }
        assert_nothing_left(&lab);
    }
}

#[test]
fn a_wrong_manifest_is_named_with_its_place_before_anything_starts() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for cluster in ["a", "b"] {
        fs::create_dir(folder.path().join(cluster)).unwrap();
        fs::write(
            folder.path().join(cluster).join("web.yaml"),
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  ports:\n    - port: \
             eighty\n",
        )
        .unwrap();
    }
    let tour =
        Command::new(CLUSTERCTL).args(["demo", "run", "--manifests"]).arg(folder.path()).output().unwrap();
    let error = String::from_utf8(tour.stderr).unwrap();
    assert!(tour.status.code() == Some(1) && error.contains("web.yaml:8:13"), "{error}");
    assert_eq!(tour.stdout, b"", "nothing has begun");
}

#[test]
fn ctrl_c_removes_the_lab_of_the_tour_wherever_it_is() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    for moment in ["each host a network namespace", "Trust", "Cluster b fails"] {
        let mut tour = Command::new(CLUSTERCTL);
        tour.args(["demo", "run"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tour = tour.spawn().unwrap();
        let lab: LabName = format!("tour-{}-0", tour.id()).parse().unwrap();
        let mut lines = BufReader::new(tour.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(moment)), "{moment}: {tour:?}");
        let has_begun = moment != "each host a network namespace";
        assert!(!has_begun || !traces(&lab).is_empty(), "{moment}: there is a lab to remove");
        assert!(Command::new("kill").args(["-INT", &tour.id().to_string()]).status().unwrap().success());
        drop(lines);
        assert_eq!(tour.wait().unwrap().signal(), Some(2), "{moment}");
        assert_nothing_left(&lab);
        let pattern = format!("/{lab}/");
        let programs = Command::new("pgrep").args(["-af", &pattern]).output().unwrap();
        assert_eq!(String::from_utf8(programs.stdout).unwrap(), "", "{moment}");
    }
}

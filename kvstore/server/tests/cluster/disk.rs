//! A leader whose disk is full.

use std::path::Path;
use std::time::Duration;
use std::{env, fs, process};

use landbridge_kvstore_server::engine::ProposeError;

use crate::harness::{Cluster, block_on, put, value};

/// Names the empty folder that a second run of a test, in namespaces of its own, makes a small disk of.
const SMALL_DISK: &str = "LANDBRIDGE_TEST_SMALL_DISK";

#[test]
fn whoever_asks_a_member_whose_leader_has_no_room_is_told_so_at_once() {
    if let Ok(dir) = env::var(SMALL_DISK) {
        block_on(fill_the_disk_of_the_leader(Path::new(&dir)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "disk::whoever_asks_a_member_whose_leader_has_no_room_is_told_so_at_once";
    let script = "mount -t tmpfs -o size=4m none \"$LANDBRIDGE_TEST_SMALL_DISK\" && exec \"$0\" --exact \"$1\" --nocapture";
    let mut command = process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    let run =
        command.arg(env::current_exe().unwrap()).arg(test).env(SMALL_DISK, dir.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    assert!(said.contains("the disk was full"), "{said}");
}

async fn fill_the_disk_of_the_leader(dir: &Path) {
    let mut cluster = Cluster::new(3);
    let options = &mut cluster.nodes[0].options;
    (options.data_dir, options.snapshot_entries) = (dir.join("data"), 1_000_000);
    cluster.start().await;
    let leader = cluster.leader().await;
    if leader != 0 {
        let own = cluster.engine(0).status().member_id;
        cluster.engine(leader).move_leader(own).await.unwrap();
        assert_eq!(cluster.leader().await, 0);
    }
    // Something else takes the room, but for a little.
    let ballast = dir.join("ballast");
    let mut taken = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut taken, &[1; 4096]).is_ok() {}
    let follower = cluster.engine(1);
    let mut written = 0;
    let refused = loop {
        match follower.propose(put(format!("key {written}"), vec![b'5'; 1_000])).await {
            Ok(applied) => applied.outcome.unwrap(),
            Err(refused) => break refused,
        };
        written += 1;
        assert!(written < 5_000);
    };
    assert_eq!(refused, ProposeError::NoSpace);
    println!("the disk was full after {written} puts");
    assert_eq!(follower.propose(put("k", "v")).await, Err(ProposeError::NoSpace));
    follower.read_barrier().await.unwrap();
    assert!(value(follower, &format!("key {}", written - 1)).is_some());
    fs::remove_file(&ballast).unwrap();
    drop(taken);
    while follower.propose(put("after", "v")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.agree().await;
    cluster.shutdown().await;
}

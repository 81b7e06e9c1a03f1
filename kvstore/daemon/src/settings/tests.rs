use super::*;
use crate::flags::{self, Invocation};

fn settings(line: &str) -> Result<Settings> {
    match flags::parse(line.split_whitespace().map(str::to_owned), []) {
        Ok(Invocation::Serve(values)) => Settings::new(&values),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_etcd() {
    let Settings { options, service, notes, .. } = settings("").unwrap();
    assert_eq!(options.engine.data_dir, Path::new("default.etcd"));
    assert_eq!(options.listen, ["http://127.0.0.1:2379".parse().unwrap()]);
    assert_eq!(options.advertise, ["http://localhost:2379"]);
    assert_eq!((service.max_txn_ops, service.max_request_bytes), (128, 1_572_864));
    assert_eq!(service.compaction, CompactionMode::Periodic(Duration::MAX));
    assert!(notes.is_empty(), "{notes:?}");
}

/// The texts up to the next step are those of etcd 3.5.16.
#[test]
fn what_does_not_go_together_is_told() {
    for (line, text) in [
        ("--listen-client-urls http://127.0.0.1:1", "--advertise-client-urls is required when"),
        (
            "--name x --initial-cluster y=http://localhost:2380",
            "couldn't find local name \"x\" in the initial",
        ),
        (
            "--initial-advertise-peer-urls http://localhost:1 --initial-cluster default=http://localhost:2",
            "--initial-cluster has default=http://localhost:2 but missing from --initial-advertise-peer-urls=",
        ),
        ("--election-timeout 200", "--election-timeout[200ms] should be at least as 5 times as"),
        (
            "--election-timeout 60000",
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        ("--listen-client-urls https://127.0.0.1:1 --advertise-client-urls https://a:1", "TLS key/cert"),
        ("--advertise-client-urls http://0.0.0.0", "URL address does not have the form \"host:port\""),
        ("--advertise-client-urls http://a:1/b", "URL must not contain a path"),
        ("--advertise-client-urls ftp://a:1", "URL scheme must be http, https, unix, or unixs"),
        ("--listen-peer-urls http://name:1", "--listen-peer-urls"),
        ("--cert-file a", "--cert-file needs --key-file"),
        ("--cert-file a --key-file b --client-cert-auth", "needs --trusted-ca-file"),
        ("--cert-file a --key-file b --tls-min-version TLS1.3 --cipher-suites x", "only TLS1.3 is enabled"),
        ("--initial-cluster-state existing", "needs --initial-cluster"),
        ("--initial-cluster default=http://a:1,b=http://a:1", "is there twice"),
        ("--auto-compaction-retention x", "error parsing auto-compaction-retention"),
        ("--auto-compaction-mode revision --auto-compaction-retention 5m", "give a number of revisions"),
        ("--snapshot-count 0", "--snapshot-count is 0"),
        ("--max-concurrent-streams 0", "--max-concurrent-streams is 0"),
        ("--max-concurrent-streams 4294967296", "set it to 1 to 4294967295"),
        ("--listen-metrics-urls https://127.0.0.1:1", "TLS key/cert"),
        ("--listen-metrics-urls nonsense", "--listen-metrics-urls"),
    ] {
        let error = format!("{:#}", settings(line).unwrap_err());
        assert!(error.contains(text), "{line}: {error}");
    }
}

#[test]
fn a_cluster_is_read_as_etcd_reads_it() {
    let line = "--name b --initial-advertise-peer-urls http://b:1,http://b:2 \
                --initial-cluster b=http://b:2,a=http://a:1,b=http://b:1 --initial-cluster-token t";
    let Ok(Invocation::Serve(values)) = flags::parse(line.split_whitespace().map(str::to_owned), []) else {
        panic!("{line}")
    };
    let cluster = cluster::of(&values).unwrap();
    let members: Vec<_> = cluster.initial.iter().map(|m| (m.name.as_str(), m.peer_urls.len())).collect();
    assert_eq!((members, cluster.token.as_str()), (vec![("a", 1), ("b", 2)], "t"));
}

#[test]
fn retention_counts_hours_where_it_has_no_unit() {
    assert_eq!(retention("2").unwrap(), Duration::from_hours(2));
    assert_eq!(retention("5m").unwrap(), Duration::from_mins(5));
    assert_eq!(retention("0").unwrap(), Duration::MAX);
}

#[test]
fn connections_and_metrics_are_as_asked_for() {
    let line = "--auto-compaction-mode revision --auto-compaction-retention 1000 --max-concurrent-streams 7 \
                --grpc-keepalive-interval 0 --grpc-keepalive-timeout 3s --metrics extensive \
                --listen-metrics-urls http://127.0.0.1:1,http://127.0.0.1:2";
    let Settings { options, service, notes } = settings(line).unwrap();
    assert_eq!(service.compaction, CompactionMode::Revision(1000));
    assert_eq!((service.max_streams, service.ping_interval), (7, None));
    assert_eq!((service.ping_timeout, service.times_calls), (Duration::from_secs(3), true));
    assert_eq!(options.listen_metrics.len(), 2);
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn a_quota_may_be_less_than_nothing_which_is_none() {
    let quota = |line| settings(line).map(|settings| (settings.options.engine.quota_bytes, settings.notes));
    assert_eq!(quota("").unwrap(), (0, Vec::new()));
    assert_eq!(quota("--quota-backend-bytes 8589934592").unwrap(), (8 << 30, Vec::new()));
    assert_eq!(quota("--quota-backend-bytes=-1").unwrap(), (-1, Vec::new()));
}

#[test]
fn data_of_etcd_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("member/snap")).unwrap();
    std::fs::write(dir.path().join("member/snap/db"), "").unwrap();
    let error = settings(&format!("--data-dir {}", dir.path().display())).unwrap_err();
    assert!(error.to_string().contains("holds data of etcd"));
}

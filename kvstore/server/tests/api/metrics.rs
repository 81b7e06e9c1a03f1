//! Metrics, by the names that dashboards and alerts look for.

use std::collections::BTreeSet;

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{AccessRules, ServiceSettings};
use landbridge_lab::requirement::{Requirement, etcd, met};

use crate::http::get;
use crate::store::{Client, Etcd, Ours, soon};

/// Names and types as etcd has them.
const METRICS: &[(&str, &str)] = &[
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_is_learner", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_id", "gauge"),
    ("etcd_server_version", "gauge"),
    ("etcd_cluster_version", "gauge"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_server_health_success", "counter"),
    ("etcd_server_health_failures", "counter"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_mvcc_put_total", "counter"),
    ("etcd_mvcc_delete_total", "counter"),
    ("etcd_mvcc_range_total", "counter"),
    ("etcd_mvcc_txn_total", "counter"),
    ("etcd_debugging_mvcc_put_total", "counter"),
    ("etcd_debugging_mvcc_delete_total", "counter"),
    ("etcd_debugging_mvcc_range_total", "counter"),
    ("etcd_debugging_mvcc_txn_total", "counter"),
    ("etcd_debugging_mvcc_current_revision", "gauge"),
    ("etcd_debugging_mvcc_compact_revision", "gauge"),
    ("etcd_debugging_mvcc_keys_total", "gauge"),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
    ("etcd_debugging_mvcc_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_pending_events_total", "gauge"),
    ("etcd_debugging_mvcc_events_total", "counter"),
    ("etcd_debugging_snap_save_total_duration_seconds", "histogram"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_wal_write_bytes_total", "gauge"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("grpc_server_handled_total", "counter"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

/// Only etcd 3.4 has these.
const OLD: [&str; 3] =
    ["etcd_debugging_mvcc_put_total", "etcd_debugging_mvcc_delete_total", "etcd_debugging_mvcc_txn_total"];

/// What a metric says, as it is written.
fn written<'t>(text: &'t str, metric: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{metric} is missing:\n{text}"))
}

/// What a metric says.
fn value(text: &str, metric: &str) -> f64 {
    written(text, metric).parse().unwrap()
}

#[tokio::test]
async fn metrics_count_what_was_called() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let client = Client::connect(&endpoint, "a").await;
    client.put("1", "v").await;
    client.range(pb::RangeRequest::default()).await.unwrap_err();
    client.get("1").await.unwrap();
    client.delete("1").await;
    let read =
        || pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(client.range_of("1", "2"))) };
    let put = pb::PutRequest { key: client.key("2"), ..Default::default() };
    let put = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    for success in [vec![read(), read()], vec![read(), put], vec![read()]] {
        client.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    }
    let text = soon(async {
        loop {
            let (status, text) = get(&endpoint, "/metrics").await;
            assert_eq!(status, 200);
            // A new member looks for its leader, and says who it is, beside those who ask.
            if value(&text, "etcd_server_leader_changes_seen_total") > 0.0
                && written(&text, "etcd_server_proposals_pending") == "0"
            {
                return text;
            }
        }
    });
    let text = text.await;
    let count = |metric: &str| written(&text, metric);
    let value = |metric: &str| value(&text, metric);
    let call = |code: &str, method: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    assert_eq!((value(&call("OK", "Put")), value(&call("InvalidArgument", "Range"))), (1.0, 1.0));
    for (name, times) in [("put", "2"), ("delete", "1"), ("range", "5"), ("txn", "2")] {
        assert_eq!(count(&format!("etcd_mvcc_{name}_total")), times, "{name}");
        assert_eq!(count(&format!("etcd_debugging_mvcc_{name}_total")), times, "{name}");
    }
    for (metric, expected) in
        [("etcd_server_is_learner", "0"), ("etcd_server_leader_changes_seen_total", "1")]
    {
        assert_eq!(count(metric), expected, "{metric}");
    }
    let syncs = "etcd_disk_wal_fsync_duration_seconds";
    let below = value(&format!("{syncs}_bucket{{le=\"8.192\"}}"));
    let all = value(&format!("{syncs}_bucket{{le=\"+Inf\"}}"));
    assert!(value(&format!("{syncs}_sum")) > 0.0 && 3.0 <= below && below <= all);
    assert_eq!(count(&format!("{syncs}_count")), all.to_string());
    ours.stop().await;
}

/// Dashboards and alerts find these by name.
#[tokio::test]
async fn every_metric_has_the_name_and_the_type_that_etcd_gave_it() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    let client = Client::connect(&endpoint, "a").await;
    client.put("1", "v").await;
    let text = get(&endpoint, "/metrics").await.1;
    let types: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| !name.starts_with("landbridge_"))
        .collect();
    assert_eq!(types.len(), METRICS.len(), "each is described once");
    let types: BTreeSet<_> = types.into_iter().collect();
    assert_eq!(types, METRICS.iter().copied().collect());
    assert!(text.contains("\nlandbridge_kvstore_watch_wakes_total 0\n"));
    for metric in [
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_proposals_applied_total",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_disk_wal_write_bytes_total",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_debugging_mvcc_keys_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&text, metric) > 0.0, "{metric}");
    }
    ours.stop().await;
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start(&etcd().unwrap());
    Client::connect(&etcd.endpoint, "a").await;
    let theirs = METRICS.iter().filter(|(name, _)| !OLD.contains(name));
    let theirs: Vec<String> = theirs.map(|(name, kind)| format!("# TYPE {name} {kind}\n")).collect();
    // The version of the cluster is agreed on after the start.
    soon(async {
        loop {
            let text = get(&etcd.endpoint, "/metrics").await.1;
            let missing: Vec<_> = theirs.iter().filter(|line| !text.contains(*line)).collect();
            if missing.is_empty() {
                return;
            }
            assert_eq!(missing, ["# TYPE etcd_cluster_version gauge\n"]);
        }
    })
    .await;
}

/// etcd's `--metrics=extensive`.
#[tokio::test]
async fn calls_are_timed_where_that_is_asked_for() {
    let times = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("grpc_server_handling_seconds"));
        let of_puts = lines.filter(|line| line.starts_with('#') || line.contains("method=\"Put\""));
        of_puts.map(|line| line.rsplit_once(' ').map_or(line, |(name, _)| name).to_owned()).collect()
    };
    let basic = Ours::start(AccessRules::Open, None).await;
    Client::connect(&basic.endpoint("http"), "a").await.put("1", "v").await;
    assert_eq!(times(&get(&basic.endpoint("http"), "/metrics").await.1), [""; 0]);
    basic.stop().await;

    let settings = ServiceSettings { times_calls: true, ..ServiceSettings::default() };
    let ours = Ours::start_with(AccessRules::Open, None, settings).await;
    Client::connect(&ours.endpoint("http"), "a").await.put("1", "v").await;
    let text = get(&ours.endpoint("http"), "/metrics").await.1;
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    assert_eq!(written(&text, &format!("grpc_server_handling_seconds_count{{{labels}}}")), "1");
    assert_eq!(written(&text, &format!("grpc_server_handling_seconds_bucket{{{labels},le=\"+Inf\"}}")), "1");
    assert!(value(&text, &format!("grpc_server_handling_seconds_sum{{{labels}}}")) > 0.0);
    ours.stop().await;
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start_with(&etcd().unwrap(), &["--metrics", "extensive"]);
    Client::connect(&etcd.endpoint, "a").await.put("1", "v").await;
    assert_eq!(times(&text), times(&get(&etcd.endpoint, "/metrics").await.1));
}

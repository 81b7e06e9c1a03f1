//! `/metrics`: the text format of Prometheus, with the names that etcd's dashboards and alerts look for.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use landbridge_kvstore_store::Store;
use tonic::Code;

use super::calls::{Calls, TIMES};
use super::process::Process;
use super::{CLUSTER_VERSION, ETCD_VERSION};
use crate::engine::counters::{Durations, SYNC_BUCKETS};
use crate::grpc::Service;

/// A text under way.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// Begins a metric.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value; `labels` are in their braces already, or empty.
    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.value(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.value(name, "", value);
    }

    /// A histogram. Its buckets grow while they are read: none is less than the one before, nor more than all.
    fn durations(&mut self, name: &str, help: &str, durations: &Durations) {
        self.family(name, "histogram", help);
        let mut seen = 0;
        for (bound, bucket) in SYNC_BUCKETS.iter().zip(&durations.buckets) {
            seen += bucket.get();
            self.value(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), seen);
        }
        let count = durations.count.get().max(seen);
        self.value(&format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        let sum = Duration::from_nanos(durations.sum_nanoseconds.get()).as_secs_f64();
        self.value(&format!("{name}_sum"), "", sum);
        self.value(&format!("{name}_count"), "", count);
    }
}

impl Calls {
    /// All metrics, as they are now.
    pub(super) fn render(&self, service: &Service) -> String {
        let mut text = Text::default();
        member(&mut text, service);
        proposals(&mut text, service);
        disk(&mut text, service);
        store(&mut text, service);
        operations(&mut text, service);
        watches(&mut text, service);
        self.calls(&mut text);
        process(&mut text);
        text.0
    }

    fn calls(&self, text: &mut Text) {
        let health = "The total number of successful health checks";
        text.counter("etcd_server_health_success", health, self.healthy.load(Relaxed));
        let health = "The total number of failed health checks";
        text.counter("etcd_server_health_failures", health, self.unhealthy.load(Relaxed));
        let name = "etcd_network_client_grpc_received_bytes_total";
        let help = "The total number of bytes received from grpc clients.";
        text.counter(name, help, self.received_bytes.load(Relaxed));
        let name = "etcd_network_client_grpc_sent_bytes_total";
        let help = "The total number of bytes sent to grpc clients.";
        text.counter(name, help, self.sent_bytes.load(Relaxed));
        let name = "grpc_server_started_total";
        text.family(name, "counter", "Total number of RPCs started on the server.");
        for method in &self.methods {
            let (service, method_name, kind) = (&method.service, &method.name, method.kind);
            let labels =
                format!("{{grpc_method=\"{method_name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}}");
            text.value(name, &labels, method.started.load(Relaxed));
        }
        let name = "grpc_server_handled_total";
        let help = "Total number of RPCs completed on the server, regardless of success or failure.";
        text.family(name, "counter", help);
        for method in &self.methods {
            let (service, method_name, kind) = (&method.service, &method.name, method.kind);
            for (code, handled) in method.handled.iter().enumerate() {
                let handled = handled.load(Relaxed);
                // A metric that comes into being with its first failure cannot be told to have grown by it.
                if handled > 0 || method.started.load(Relaxed) > 0 {
                    let code = code_name(i32::try_from(code).map_or(Code::Unknown, Code::from_i32));
                    let labels = format!(
                        "{{grpc_code=\"{code}\",grpc_method=\"{method_name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}}"
                    );
                    text.value(name, &labels, handled);
                }
            }
        }
        self.times(text);
    }

    /// How long calls took, where that is measured.
    fn times(&self, text: &mut Text) {
        let name = "grpc_server_handling_seconds";
        let timed = self.methods.iter().filter_map(|method| Some((method, method.times.as_ref()?)));
        for (number, (method, times)) in timed.enumerate() {
            if number == 0 {
                let help = "Histogram of response latency (seconds) of gRPC that had been application-level \
                            handled by the server.";
                text.family(name, "histogram", help);
            }
            let labels = format!(
                "grpc_method=\"{}\",grpc_service=\"{}\",grpc_type=\"{}\"",
                method.name, method.service, method.kind
            );
            let mut seen = 0;
            let bounds = TIMES.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, bucket) in bounds.zip(&times.buckets) {
                seen += bucket.load(Relaxed);
                text.value(&format!("{name}_bucket"), &format!("{{{labels},le=\"{bound}\"}}"), seen);
            }
            let sum = Duration::from_nanos(times.sum_nanoseconds.load(Relaxed)).as_secs_f64();
            text.value(&format!("{name}_sum"), &format!("{{{labels}}}"), sum);
            text.value(&format!("{name}_count"), &format!("{{{labels}}}"), seen);
        }
    }
}

fn member(text: &mut Text, service: &Service) {
    let status = service.status_now();
    let has_leader = u8::from(service.has_leader());
    text.gauge(
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        has_leader,
    );
    let help = "Whether or not this member is a leader. 1 if is, 0 otherwise.";
    text.gauge("etcd_server_is_leader", help, u8::from(status.is_leader));
    let help = "Whether or not this member is a learner. 1 if is, 0 otherwise.";
    text.gauge("etcd_server_is_learner", help, u8::from(service.is_learner()));
    let changes = service.counters().leader_changes.get();
    text.counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", changes);
    let help = "The total number of consensus proposals committed.";
    text.gauge("etcd_server_proposals_committed_total", help, status.committed_index);
    let help = "The total number of consensus proposals applied.";
    text.gauge("etcd_server_proposals_applied_total", help, status.applied_index);
    let labelled = [
        (
            "etcd_server_id",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
            format!("{{server_id=\"{:x}\"}}", status.member_id),
        ),
        (
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            format!("{{server_version=\"{ETCD_VERSION}\"}}"),
        ),
        (
            "etcd_cluster_version",
            "Which version is running. 1 for 'cluster_version' label with current cluster version",
            format!("{{cluster_version=\"{}\"}}", CLUSTER_VERSION.trim_end_matches(".0")),
        ),
    ];
    for (name, help, labels) in labelled {
        text.family(name, "gauge", help);
        text.value(name, &labels, 1);
    }
    let help = "Total size of the underlying database physically allocated in bytes.";
    text.gauge("etcd_mvcc_db_total_size_in_bytes", help, status.disk_bytes);
    let help = "Total size of the underlying database logically in use in bytes.";
    text.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, status.used_bytes);
}

fn proposals(text: &mut Text, service: &Service) {
    let counters = service.counters();
    let help = "The current number of pending proposals to commit.";
    text.gauge("etcd_server_proposals_pending", help, counters.proposals_pending.get());
    let help = "The total number of failed proposals seen.";
    text.counter("etcd_server_proposals_failed_total", help, counters.proposals_failed.get());
    let help = "Requests that were applied, whoever made them.";
    text.counter("landbridge_kvstore_requests_applied_total", help, counters.requests_applied.get());
    let help = "Batches that were applied with these requests.";
    text.counter("landbridge_kvstore_batches_applied_total", help, counters.batches_applied.get());
    let help = "The latency distributions of applying what was committed, which is done in memory.";
    text.durations("landbridge_kvstore_apply_duration_seconds", help, &counters.applies);
}

/// There is no backend whose commits could be timed: what is in the log is durable.
fn disk(text: &mut Text, service: &Service) {
    let counters = service.counters();
    let help = "The latency distributions of fsync called by WAL.";
    text.durations("etcd_disk_wal_fsync_duration_seconds", help, &counters.log_syncs);
    let help = "Total number of bytes written in WAL.";
    text.gauge("etcd_disk_wal_write_bytes_total", help, counters.log_bytes.get());
    let help = "The total latency distributions of save called by snapshot.";
    text.durations("etcd_debugging_snap_save_total_duration_seconds", help, &counters.snapshots);
    let help = "Snapshots that could not be written at first, for want of room for example.";
    text.counter("landbridge_kvstore_snapshots_failed_total", help, counters.snapshots_failed.get());
    // As etcd has it where there is no limit: what is used is then a small share of it, and no alert fires.
    let quota = service.quota_bytes().map_or(-1, i128::from);
    text.gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", quota);
}

/// By both names: dashboards still have those that etcd 3.4 gave up.
fn operations(text: &mut Text, service: &Service) {
    let operations = &service.counters().operations;
    for (name, counter) in [
        ("put", &operations.puts),
        ("delete", &operations.deletes),
        ("range", &operations.ranges),
        ("txn", &operations.txns),
    ] {
        let (help, value) = (format!("Total number of {name}s seen by this member."), counter.get());
        text.counter(&format!("etcd_mvcc_{name}_total"), &help, value);
        text.counter(&format!("etcd_debugging_mvcc_{name}_total"), &help, value);
    }
}

fn store(text: &mut Text, service: &Service) {
    let all = landbridge_kvstore_store::RangeRequest {
        count_only: true,
        ..landbridge_kvstore_store::RangeRequest::new(landbridge_kvstore_store::KeyRange::From(
            bytes::Bytes::from_static(b"\0"),
        ))
    };
    let (revision, compacted, keys, leases) = service.look(|store: &Store| {
        let keys = store.range(&all).map_or(0, |all| all.count);
        (store.revision(), store.compacted_revision(), keys, store.leases().count())
    });
    text.gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", revision);
    let help = "The revision of the last compaction in store.";
    text.gauge("etcd_debugging_mvcc_compact_revision", help, compacted);
    text.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", keys);
    text.gauge("landbridge_kvstore_leases", "Leases that live.", leases);
}

fn watches(text: &mut Text, service: &Service) {
    let watches = service.watch_hub().counters();
    text.gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", watches.streams());
    text.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", watches.watchers());
    let help = "Total number of unsynced slow watchers.";
    text.gauge("etcd_debugging_mvcc_slow_watcher_total", help, watches.slow_watchers());
    let help = "Total number of pending events to be sent.";
    text.gauge("etcd_debugging_mvcc_pending_events_total", help, watches.pending_events());
    let help = "Total number of events sent by this member.";
    text.counter("etcd_debugging_mvcc_events_total", help, watches.events());
    let help = "How often a stream of watches was woken because something may be for it.";
    text.counter("landbridge_kvstore_watch_wakes_total", help, watches.wakes());
}

fn process(text: &mut Text) {
    let process = Process::look();
    let help = "Total user and system CPU time spent in seconds.";
    text.counter("process_cpu_seconds_total", help, process.cpu.as_secs_f64());
    text.gauge("process_open_fds", "Number of open file descriptors.", process.open_files);
    text.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes);
    text.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes);
    let help = "Start time of the process since unix epoch in seconds.";
    text.gauge("process_start_time_seconds", help, process.start_seconds);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    text.gauge("process_max_fds", "Maximum number of open file descriptors.", limit);
}

/// The name of a code, as Go has it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

//! `/metrics`: the text format of Prometheus, with the names that etcd's dashboards and alerts look for.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use landbridge_kvstore_store::Store;
use tonic::Code;

use super::calls::Calls;
use super::process::Process;
use super::{CLUSTER_VERSION, ETCD_VERSION};
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
}

impl Calls {
    /// All metrics, as they are now.
    pub(super) fn render(&self, service: &Service) -> String {
        let mut text = Text::default();
        member(&mut text, service);
        store(&mut text, service);
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

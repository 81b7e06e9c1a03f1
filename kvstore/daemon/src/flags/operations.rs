//! Flags of limits, metrics, logs and of what etcd does inside.

use super::Kind::{Choice, Duration, Integer, Number, Switch, Text};
use super::{Flag, none, refused, works};

const LEVELS: super::Kind = Choice(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]);
const IN_MEMORY: &str = "data is in memory and in the log: there is no bbolt file";
const NO_PROXY: &str = "there is no v2 proxy here";
const NO_TRACES: &str = "nothing is sent to a collector of traces";
const ROTATION: &str = "files of logs are rotated by others: use logrotate or the journal";
const CONSTANT_PAUSE: &str = "compaction takes small steps beside requests";
const CHECKED: &str = "data is checked by its checksums whenever it is read from disk";

pub(super) const FLAGS: &[Flag] = &[
    works(
        "quota-backend-bytes",
        Integer,
        "0",
        "Bytes of keys and history above which writes are refused; 0 is 2 GiB, less is no limit",
    ),
    works(
        "max-concurrent-streams",
        Number,
        "4294967295",
        "Streams that one connection may have; 16384 where this is not given",
    ),
    works(
        "grpc-keepalive-interval",
        Duration,
        "2h",
        "How often an idle client is asked whether it lives; 0 is never",
    ),
    works("grpc-keepalive-timeout", Duration, "20s", "How long it may take to answer"),
    works("listen-metrics-urls", Text, "", "More URLs with /metrics and /health alone"),
    works("metrics", Choice(&["basic", "extensive"]), "basic", "How much is measured: basic, extensive"),
    works("log-level", LEVELS, "info", "What is logged: debug, info, warn, error"),
    works("log-format", Choice(&["json", "console"]), "json", "Form of the log: json, console"),
    works("log-outputs", Text, "default", "Where the log goes: stderr, stdout or files, with commas between"),
    works(
        "experimental-watch-progress-notify-interval",
        Duration,
        "10m",
        "How often quiet watches hear how far they are",
    ),
    works("version", Switch, "false", "Tell the version"),
    works("help", Switch, "false", "Tell this"),
    refused("unsafe-no-fsync", Switch, "false", "what is acknowledged is on disk: there is no other way"),
    refused("proxy", Choice(&["off", "readonly", "on"]), "off", NO_PROXY),
];

pub(super) const WITHOUT_EFFECT: &[Flag] = &[
    none(
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        "a client may ask whether the store lives as often as it likes",
    ),
    none("backend-bbolt-freelist-type", Text, "map", IN_MEMORY),
    none("experimental-backend-bbolt-freelist-type", Text, "array", IN_MEMORY),
    none("backend-batch-interval", Duration, "", IN_MEMORY),
    none("backend-batch-limit", Number, "0", IN_MEMORY),
    none("experimental-memory-mlock", Switch, "false", IN_MEMORY),
    none("experimental-txn-mode-write-with-shared-buffer", Switch, "true", IN_MEMORY),
    none("experimental-bootstrap-defrag-threshold-megabytes", Number, "0", IN_MEMORY),
    none("experimental-stop-grpc-service-on-defrag", Switch, "false", "defragmentation stops nothing"),
    none("experimental-compaction-batch-limit", Number, "1000", CONSTANT_PAUSE),
    none("experimental-compaction-sleep-interval", Duration, "10ms", CONSTANT_PAUSE),
    none("experimental-initial-corrupt-check", Switch, "false", CHECKED),
    none("experimental-corrupt-check-time", Duration, "0s", CHECKED),
    none("experimental-compact-hash-check-enabled", Switch, "false", CHECKED),
    none("experimental-compact-hash-check-time", Duration, "1m", CHECKED),
    none(
        "experimental-enable-lease-checkpoint",
        Switch,
        "false",
        "a new leader gives leases their whole time",
    ),
    none(
        "experimental-enable-lease-checkpoint-persist",
        Switch,
        "false",
        "a new leader gives leases their whole time",
    ),
    none("experimental-downgrade-check-time", Duration, "5s", "the format on disk says its version itself"),
    none("experimental-warning-apply-duration", Duration, "100ms", "slow requests show in the metrics"),
    none(
        "experimental-warning-unary-request-duration",
        Duration,
        "300ms",
        "slow requests show in the metrics",
    ),
    none("experimental-max-learners", Number, "1", "one learner at a time, as in etcd by default"),
    none(
        "experimental-snapshot-catchup-entries",
        Number,
        "5000",
        "a tenth of --snapshot-count is kept for members behind",
    ),
    none("experimental-enable-distributed-tracing", Switch, "false", NO_TRACES),
    none("experimental-distributed-tracing-address", Text, "localhost:4317", NO_TRACES),
    none("experimental-distributed-tracing-service-name", Text, "etcd", NO_TRACES),
    none("experimental-distributed-tracing-instance-id", Text, "", NO_TRACES),
    none("experimental-distributed-tracing-sampling-rate", Number, "0", NO_TRACES),
    none("feature-gates", Text, "", "there are no features to switch"),
    none("enable-pprof", Switch, "false", "profiles are taken from outside: use perf"),
    none("cors", Text, "*", "no browser is served"),
    none("host-whitelist", Text, "*", "no browser is served"),
    none("logger", Text, "zap", "there is one logger, and its lines have zap's form"),
    none("debug", Switch, "false", "use --log-level=debug"),
    none("log-package-levels", Text, "", "use --log-level"),
    none("log-output", Text, "default", "use --log-outputs"),
    none("enable-log-rotation", Switch, "false", ROTATION),
    none("log-rotation-config-json", Text, "", ROTATION),
    none("proxy-failure-wait", Number, "5000", NO_PROXY),
    none("proxy-refresh-interval", Number, "30000", NO_PROXY),
    none("proxy-dial-timeout", Number, "1000", NO_PROXY),
    none("proxy-write-timeout", Number, "5000", NO_PROXY),
    none("proxy-read-timeout", Number, "0", NO_PROXY),
];

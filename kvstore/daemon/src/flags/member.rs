//! Flags of one member.

use super::Kind::{Duration, Number, Switch, Text};
use super::{Flag, none, refused, works};

pub(super) const FLAGS: &[Flag] = &[
    works("name", Text, "default", "Name of this member, as the initial cluster has it"),
    works("data-dir", Text, "", "Folder of all data; <name>.etcd where none is given"),
    works("snapshot-count", Number, "10000", "Log entries between two snapshots"),
    works("heartbeat-interval", Number, "100", "Milliseconds between two heartbeats of a leader"),
    works("election-timeout", Number, "1000", "Milliseconds without a leader before an election"),
    works(
        "listen-client-urls",
        Text,
        "http://localhost:2379",
        "URLs to listen on for clients: http, https, unix, unixs",
    ),
    works("listen-peer-urls", Text, "http://localhost:2380", "URLs to listen on for the other members"),
    works("max-txn-ops", Number, "128", "Most operations of one transaction"),
    works("max-request-bytes", Number, "1572864", "Largest request, in bytes"),
    works(
        "config-file",
        Text,
        "",
        "YAML file with the same names; other flags and variables do not count then",
    ),
    refused(
        "wal-dir",
        Text,
        "",
        "log and snapshots are in one folder: mount a disk at the data folder's wal/ instead",
    ),
    refused("listen-client-http-urls", Text, "", "HTTP and gRPC are served by the same URLs"),
    refused("socket-reuse-port", Switch, "false", "two stores cannot share a port"),
    none(
        "initial-election-tick-advance",
        Switch,
        "true",
        "a member alone leads at once, others wait for a vote",
    ),
    none("max-snapshots", Number, "5", "snapshots that nothing needs are removed at once"),
    none("max-wals", Number, "5", "log files are used again, and kept as long as they are needed"),
    none("socket-reuse-address", Switch, "false", "addresses are taken again at once in any case"),
    none("raft-read-timeout", Duration, "5s", "connections of members have deadlines of their own"),
    none("raft-write-timeout", Duration, "5s", "connections of members have deadlines of their own"),
    none("enable-grpc-gateway", Switch, "true", "JSON over HTTP is part of the store"),
];

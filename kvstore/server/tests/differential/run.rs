//! Runs one sequence against both stores, operation by operation, until an answer differs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use tokio::time::timeout;

use crate::allowed::{Allowed, Differences, even_out};
use crate::answer::{Answer, Client, Reply};
use crate::coverage::Coverage;
use crate::generator::{PASSWORD, ROOT};
use crate::operation::{COMPACTED, NOW, Operation, Revisions, Users};
use crate::stores::{Both, PATIENCE, Stores};
use crate::watching::Watching;

/// The first operation that was answered differently.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its place in the sequence.
    pub index: usize,
    /// With real revisions.
    pub operation: Operation,
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}: {:?}\n{}", self.index, self.operation, self.what)
    }
}

/// What was seen on the way.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub coverage: Coverage,
    pub differences: Differences,
}

/// Runs `operations`, and then looks at everything that is left, on new stores.
pub(crate) async fn run(etcd: &Path, operations: &[Operation]) -> Result<Report, Failure> {
    let has_users = operations.iter().any(|operation| matches!(operation.asked(), Operation::Users(_)));
    let stores = Stores::start(etcd, has_users).await;
    let channels = stores.connect().await;
    let failed = |what| Failure { index: 0, operation: Operation::Sync, what };
    // Watches that began without a user end, with ours, when users are needed.
    let watching = if has_users { None } else { Some(Watching::open(&channels).await.map_err(failed)?) };
    let mut sequence = Sequence {
        clients: Both { ours: Client::new(&channels.ours), etcd: Client::new(&channels.etcd) },
        watching,
        revisions: Revisions { now: 1, compacted: 0 },
        compacted: BTreeSet::new(),
        report: Report::default(),
    };
    for (index, operation) in operations.iter().chain(&last_look(has_users)).enumerate() {
        let operation = operation.resolved(sequence.revisions);
        if let Err(what) = sequence.step(&operation).await {
            return Err(Failure { index, operation, what });
        }
    }
    let Sequence { watching, mut report, clients, .. } = sequence;
    if let Some(watching) = watching {
        note_watches(&watching, &mut report);
    }
    drop((clients, channels));
    stores.stop().await;
    Ok(report)
}

fn note_watches(watching: &Watching, report: &mut Report) {
    for (name, count) in [
        ("events", watching.tally.events),
        ("messages of several revisions", watching.tally.batches),
        ("fragments", watching.tally.fragments),
        ("news of progress", watching.tally.progress),
    ] {
        report.coverage.note_seen(name, count);
    }
    watching.tally.differences(&mut report.differences);
    for (difference, count) in &watching.differences {
        *report.differences.entry(*difference).or_default() += count;
    }
}

/// Compares everything that can be read. Where there are users, root lets everyone read, if it can.
fn last_look(has_users: bool) -> Vec<Operation> {
    let all = || pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let revisions = [0, COMPACTED, COMPACTED + 1, NOW - 100, NOW - 10, NOW - 3, NOW - 1];
    let mut operations = if has_users { open_to_all() } else { vec![Operation::Sync, Operation::Leases] };
    operations.extend(revisions.map(|revision| Operation::Range(pb::RangeRequest { revision, ..all() })));
    operations.extend(
        [0, COMPACTED, COMPACTED + 1, NOW - 10]
            .map(|revision| Operation::HashKv(pb::HashKvRequest { revision })),
    );
    if !has_users {
        let ids = 1..=8;
        operations.extend(ids.map(|id| Operation::TimeToLive(pb::LeaseTimeToLiveRequest { id, keys: true })));
    }
    operations
}

fn open_to_all() -> Vec<Operation> {
    let (user, password) = (ROOT.to_owned(), PASSWORD.to_owned());
    let request = pb::AuthenticateRequest { name: user.clone(), password };
    let disable = Operation::As { user, operation: Box::new(Operation::Users(Users::Disable)) };
    vec![Operation::Users(Users::Authenticate(request)), disable]
}

struct Sequence {
    clients: Both<Client>,
    /// `None` where there are users.
    watching: Option<Watching>,
    revisions: Revisions,
    /// All revisions that were compacted to.
    compacted: BTreeSet<i64>,
    report: Report,
}

impl Sequence {
    async fn step(&mut self, operation: &Operation) -> Result<(), String> {
        self.report.coverage.note(operation, self.revisions);
        if let (Some(watching), Operation::Compact(request)) = (&mut self.watching, operation)
            && (self.revisions.compacted + 1..=self.revisions.now).contains(&request.revision)
        {
            // What a watch that is behind is told of what is compacted depends on the moment.
            watching.settle(self.revisions).await?;
        }
        if let Operation::HashKv(request) = operation.asked()
            && self.compacted.contains(&request.revision)
        {
            *self.report.differences.entry(Allowed::HashOfCompacted).or_default() += 1;
            return Ok(());
        }
        let Both { ours, etcd } = &mut self.clients;
        let answers = async { tokio::join!(ours.ask(operation.clone()), etcd.ask(operation.clone())) };
        match timeout(PATIENCE, answers).await.map_err(|_| "no answer comes".to_owned())? {
            (Some(ours), Some(etcd)) => self.compare(operation, ours, etcd),
            _ => self.watch_step(operation).await,
        }
    }

    fn compare(&mut self, operation: &Operation, mut ours: Answer, mut etcd: Answer) -> Result<(), String> {
        self.report.coverage.note_answer(&etcd, self.watching.is_none());
        if let (Ok(ours), Ok(etcd)) = (&mut ours, &mut etcd) {
            even_out(operation, ours, etcd, &mut self.report.differences)?;
        }
        if let (Err(ours), Err(etcd)) = (&ours, &mut etcd)
            && etcd.text.strip_prefix("auth: ").is_some_and(|text| ours.text == format!("etcdserver: {text}"))
        {
            etcd.clone_from(ours);
            *self.report.differences.entry(Allowed::TextOfMaintenance).or_default() += 1;
        }
        if ours != etcd {
            return Err(format!("  ours {ours:?}\n  etcd {etcd:?}"));
        }
        let Ok(mut reply) = etcd else { return Ok(()) };
        for header in reply.headers() {
            let revision = header.as_ref().map_or(0, |header| header.revision);
            self.revisions.now = self.revisions.now.max(revision);
        }
        if let (Operation::Compact(request), Reply::Compact(_)) = (operation.asked(), &reply) {
            self.revisions.compacted = request.revision;
            self.compacted.insert(request.revision);
        }
        Ok(())
    }

    async fn watch_step(&mut self, operation: &Operation) -> Result<(), String> {
        let (Some(watching), revisions) = (&mut self.watching, self.revisions) else { return Ok(()) };
        let (what, done) = match operation {
            Operation::Watch { stream, request } => {
                let created = watching.create(*stream, request.clone(), revisions).await?;
                ("a watch refused", created.canceled)
            }
            Operation::CancelWatch { stream, watch_id } => {
                ("a watch cancelled", watching.cancel(*stream, *watch_id, revisions).await?)
            }
            Operation::RequestProgress { stream } => {
                ("an answer about progress", watching.request_progress(*stream, revisions).await?)
            }
            Operation::CloseStream { stream } => {
                ("a stream closed", watching.close(*stream, revisions).await?)
            }
            _ => ("a comparison of all watches", watching.sync(revisions).await.map(|()| true)?),
        };
        self.report.coverage.note_seen(what, u64::from(done));
        Ok(())
    }
}

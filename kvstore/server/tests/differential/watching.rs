//! The watches of one sequence, at both stores.
//!
//! ```text
//! slot 0..n ─► Line to ours, Line to etcd ─► by watch: news ─► Expected::check ◄─ journal
//! ```
//!
//! Invariants:
//! - A watch is as far as etcd's journal before anything is done whose outcome depends on how far it is: a compaction, its
//!   cancellation, a question for progress.
//! - The journal is a watch of all keys from the beginning, on a stream of its own; ours has to be told the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::{etcdserverpb as pb, mvccpb};
use pb::watch_request::RequestUnion;
use tonic::transport::Channel;

use crate::allowed::{Allowed, Differences};
use crate::expected::{Expected, Tally, revision};
use crate::line::{Line, News};
use crate::operation::Revisions;
use crate::stores::{Both, PATIENCE};

/// How long an answer about progress is waited for before it is asked for again: etcd forgets the question while one of
/// the watches is on its way through the past, which it goes every 100 ms.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A stream at both stores, with its watches.
struct Slot {
    lines: Both<Line>,
    watches: BTreeMap<i64, Expected>,
    /// Watches that a compaction ended: etcd forgets these only in part.
    doomed: BTreeSet<i64>,
}

/// All streams.
pub(crate) struct Watching {
    channels: Both<Channel>,
    slots: BTreeMap<usize, Slot>,
    journal_lines: Both<Line>,
    journal: Vec<mvccpb::Event>,
    pub tally: Tally,
    pub differences: Differences,
}

fn only_revision(mut response: pb::WatchResponse) -> pb::WatchResponse {
    if let Some(header) = &mut response.header {
        *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
    }
    response
}

/// Compares two messages about a watch.
fn same(of: &str, ours: pb::WatchResponse, etcd: pb::WatchResponse) -> Result<pb::WatchResponse, String> {
    let (ours, etcd) = (only_revision(ours), only_revision(etcd));
    if ours == etcd { Ok(etcd) } else { Err(format!("{of}:\n  ours {ours:?}\n  etcd {etcd:?}")) }
}

impl Watching {
    pub(crate) async fn open(channels: &Both<Channel>) -> Result<Self, String> {
        let mut journal_lines = Both { ours: Line::open(&channels.ours), etcd: Line::open(&channels.etcd) };
        for (_, line) in journal_lines.each() {
            let all = Bytes::from_static(b"\0");
            line.create(pb::WatchCreateRequest {
                key: all.clone(),
                range_end: all,
                prev_kv: true,
                ..Default::default()
            })
            .await?;
        }
        Ok(Self {
            channels: channels.clone(),
            slots: BTreeMap::new(),
            journal_lines,
            journal: Vec::new(),
            tally: Tally::default(),
            differences: Differences::new(),
        })
    }

    /// Reads the journal up to the current revision, from both.
    async fn read_journal(&mut self, now: i64) -> Result<(), String> {
        let mut read = Both { ours: Vec::new(), etcd: Vec::new() };
        for ((name, line), (_, read)) in self.journal_lines.each().into_iter().zip(read.each()) {
            let mut last = self.journal.last().map_or(1, revision);
            while last < now {
                for news in
                    line.take(0, 1, false).await.map_err(|error| format!("{name}, journal: {error}"))?
                {
                    let News::Events { events, .. } = news else {
                        return Err(format!("{name}, journal: {news:?}"));
                    };
                    read.extend(events);
                }
                last = read.last().map_or(last, revision);
            }
        }
        if read.ours != read.etcd {
            let at = read.ours.iter().zip(&read.etcd).position(|(ours, etcd)| ours != etcd);
            let at = at.unwrap_or(read.ours.len().min(read.etcd.len()));
            return Err(format!("journal:\n  ours {:?}\n  etcd {:?}", read.ours.get(at), read.etcd.get(at)));
        }
        self.journal.append(&mut read.etcd);
        Ok(())
    }

    /// Waits until all watches have been told everything, and compares.
    pub(crate) async fn sync(&mut self, revisions: Revisions) -> Result<(), String> {
        self.read_journal(revisions.now).await?;
        for (number, slot) in &mut self.slots {
            for (id, mut watch) in std::mem::take(&mut slot.watches) {
                let of =
                    |request: &pb::WatchCreateRequest| format!("stream {number}, watch {id} ({request:?})");
                let expected = watch.events(&self.journal, revisions.compacted);
                let mut ends = Both { ours: None, etcd: None };
                for ((name, line), (_, end)) in slot.lines.each().into_iter().zip(ends.each()) {
                    let news = line.take(id, expected.len(), watch.doomed).await;
                    *end = news
                        .and_then(|news| watch.check(&expected, news, &mut self.tally))
                        .map_err(|error| format!("{}, {name}: {error}", of(&watch.request)))?;
                }
                match (ends.ours, ends.etcd) {
                    (None, None) => {
                        watch.seen = self.journal.len();
                        slot.watches.insert(id, watch);
                    }
                    (Some(ours), Some(etcd)) if watch.doomed => drop(same(&of(&watch.request), ours, etcd)?),
                    ends => return Err(format!("{} ended: {ends:?}", of(&watch.request))),
                }
            }
        }
        Ok(())
    }

    /// Waits until no watch is on its way through the past, even one that has nothing to be told there: a compaction would
    /// end it. etcd goes that way with all watches at once, so that one more that is through shows that the others are. On
    /// a slow machine it sends that way watches that began later, too, if they could not be told at once.
    pub(crate) async fn settle(&mut self, revisions: Revisions) -> Result<(), String> {
        self.sync(revisions).await?;
        if revisions.now == 1 {
            return Ok(());
        }
        let all = Bytes::from_static(b"\0");
        let request = pb::WatchCreateRequest {
            key: all.clone(),
            range_end: all,
            start_revision: revisions.now,
            ..Default::default()
        };
        for (_, line) in self.journal_lines.each() {
            let watch_id = line.create(request.clone()).await?.watch_id;
            line.take(watch_id, 1, false).await?;
            line.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
            line.take(watch_id, 0, true).await?;
        }
        Ok(())
    }

    pub(crate) async fn create(
        &mut self,
        stream: usize,
        mut request: pb::WatchCreateRequest,
        revisions: Revisions,
    ) -> Result<pb::WatchResponse, String> {
        if request.start_revision < 0 {
            return self.create_before_the_beginning(request).await;
        }
        // What happened before is not looked through again.
        self.read_journal(revisions.now).await?;
        let channels = &self.channels;
        let slot = self.slots.entry(stream).or_insert_with(|| Slot {
            lines: Both { ours: Line::open(&channels.ours), etcd: Line::open(&channels.etcd) },
            watches: BTreeMap::new(),
            doomed: BTreeSet::new(),
        });
        let past = request.start_revision != 0;
        let doomed = past && request.start_revision < revisions.compacted;
        // The id of one that a compaction ends is not asked for: etcd would not give it again.
        if request.watch_id != 0 && (doomed || slot.doomed.contains(&request.watch_id)) {
            *self.differences.entry(Allowed::EndedByCompaction).or_default() += 1;
            request.watch_id = 0;
        }
        let Both { ours, etcd } = &mut slot.lines;
        let (ours, etcd) = tokio::join!(ours.create(request.clone()), etcd.create(request.clone()));
        let ours = ours.map_err(|error| format!("ours: {error}"))?;
        let created = same("created", ours, etcd.map_err(|error| format!("etcd: {error}"))?)?;
        if !created.canceled {
            let start = if past { request.start_revision } else { revisions.now + 1 };
            if doomed {
                slot.doomed.insert(created.watch_id);
            }
            let seen = self.journal.partition_point(|event| revision(event) < start);
            slot.watches.insert(created.watch_id, Expected { request, start, doomed, seen });
        }
        Ok(created)
    }

    /// On streams of their own: at etcd it has a number for a moment, which others do not get then.
    async fn create_before_the_beginning(
        &mut self,
        request: pb::WatchCreateRequest,
    ) -> Result<pb::WatchResponse, String> {
        let (mut ours, mut etcd) = (Line::open(&self.channels.ours), Line::open(&self.channels.etcd));
        let etcd = etcd.create(request.clone()).await?;
        let ours = ours.create(request.clone()).await?;
        let is_told =
            ours.canceled && ours.watch_id == -1 && ours.cancel_reason.contains("has been compacted");
        // An empty range, or a number that is taken, is told by both.
        if !etcd.canceled && !is_told {
            return Err(format!("{request:?}:\n  ours {ours:?}\n  etcd {etcd:?}"));
        }
        *self.differences.entry(Allowed::BeforeTheBeginning).or_default() += 1;
        Ok(ours)
    }

    /// Returns whether there was such a watch.
    pub(crate) async fn cancel(
        &mut self,
        stream: usize,
        id: i64,
        revisions: Revisions,
    ) -> Result<bool, String> {
        self.sync(revisions).await?;
        let Some(slot) = self.slots.get_mut(&stream) else { return Ok(false) };
        if slot.doomed.contains(&id) {
            *self.differences.entry(Allowed::EndedByCompaction).or_default() += 1;
            return Ok(false);
        }
        let cancel = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id });
        for (_, line) in slot.lines.each() {
            line.send(cancel.clone()).await;
        }
        let Some(watch) = slot.watches.remove(&id) else { return Ok(false) };
        let mut ends = Both { ours: None, etcd: None };
        for ((name, line), (_, end)) in slot.lines.each().into_iter().zip(ends.each()) {
            let news = line.take(id, 0, true).await;
            *end = news
                .and_then(|news| watch.check(&[], news, &mut self.tally))
                .map_err(|error| format!("stream {stream}, watch {id}, {name}: {error}"))?;
        }
        if let (Some(ours), Some(etcd)) = (ends.ours, ends.etcd) {
            same("cancelled", ours, etcd)?;
        }
        Ok(true)
    }

    /// Returns whether both had to answer.
    pub(crate) async fn request_progress(
        &mut self,
        stream: usize,
        revisions: Revisions,
    ) -> Result<bool, String> {
        self.sync(revisions).await?;
        let Some(slot) = self.slots.get_mut(&stream) else { return Ok(false) };
        let answers = slot.doomed.is_empty()
            && !slot.watches.is_empty()
            && slot.watches.values().all(|watch| watch.start <= revisions.now);
        for (name, line) in slot.lines.each() {
            let failed = |what: &str| format!("stream {stream}, progress, {name}: {what}");
            line.progress.clear();
            let asked = Instant::now();
            // Answers to earlier questions may still come, too.
            while !line.progress.contains(&revisions.now) {
                line.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
                if !answers {
                    *self.differences.entry(Allowed::SilentProgress).or_default() += 1;
                    break;
                }
                line.wait_for_progress(ASK_AGAIN).await.map_err(|error| failed(&error))?;
                if asked.elapsed() > PATIENCE {
                    return Err(failed(&format!("is only at {:?}", line.progress)));
                }
            }
            if line.progress.iter().any(|revision| *revision > revisions.now) {
                return Err(failed(&format!("is already at {:?}", line.progress)));
            }
        }
        Ok(answers)
    }

    /// Returns whether there was such a stream.
    pub(crate) async fn close(&mut self, stream: usize, revisions: Revisions) -> Result<bool, String> {
        self.sync(revisions).await?;
        Ok(self.slots.remove(&stream).is_some())
    }
}

//! The watches of one stream: what each is about and how far it is. Decides what is said next; says nothing itself.
//!
//! ```text
//! create ─► due ── step ─► changes ─► due again
//!            ▲       ├───► up to date, or begins in the future ─► rests
//!            │       └───► compacted ─► ended
//!            └── the store has changed ◄─┘
//! ```
//!
//! Invariants:
//! - Nothing is queued for a watch: what it has not been given is in the store's history.
//! - What is said about progress covers only what was given before: no watch is asked to step while something is on its way.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use landbridge_kvstore_store::{KeyRange, Store, WatchFilter, WatchStep, Watcher};

use super::super::proto::etcdserverpb as pb;
use super::delivery::Delivery;
use crate::access::{AccessError, Permissions};

/// Stands for the whole stream, or for a watch that could not be made.
pub(super) const NO_WATCH: i64 = -1;

/// Watches looked at in one read of the store, so that writers do not wait for long.
const WATCHES_PER_READ: usize = 128;

/// All watches of a stream.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_id: BTreeMap<i64, Watch>,
    next_id: i64,
    /// Those that may have something new, each once; some may have ended since.
    due: VecDeque<i64>,
    /// A request for progress waits until all watches were given this revision.
    progress_wanted: Option<i64>,
}

#[derive(Debug)]
struct Watch {
    watcher: Watcher,
    range: KeyRange,
    fragment: bool,
    /// Whether it was told something since the last round of progress; `None` if it does not want to know of progress.
    told: Option<bool>,
    /// It was given everything up to here; `None` if it is behind or begins in the future.
    given: Option<i64>,
    /// Whether it is among those due.
    due: bool,
}

/// What there is to say.
#[derive(Debug)]
pub(super) enum News {
    /// Changes for one watch.
    Changes(Delivery),
    /// A message without changes, from the store at this revision.
    Message(i64, pb::WatchResponse),
}

impl Watches {
    /// Whether there may be something to say.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty() || self.progress().is_some()
    }

    /// Whether there is such a watch.
    pub(super) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether a watch wants to be told about progress.
    pub(super) fn want_progress(&self) -> bool {
        self.by_id.values().any(|watch| watch.told.is_some())
    }

    /// Makes a watch, or says why not.
    pub(super) fn create(
        &mut self,
        store: &Store,
        request: pb::WatchCreateRequest,
        permissions: Result<Permissions, AccessError>,
    ) -> News {
        let mut response = pb::WatchResponse { created: true, ..pb::WatchResponse::default() };
        match self.try_create(store, request, permissions) {
            Ok(id) => response.watch_id = id,
            Err(reason) => {
                response.watch_id = NO_WATCH;
                response.canceled = true;
                response.cancel_reason = reason;
            }
        }
        News::Message(store.revision(), response)
    }

    fn try_create(
        &mut self,
        store: &Store,
        request: pb::WatchCreateRequest,
        permissions: Result<Permissions, AccessError>,
    ) -> Result<i64, String> {
        use pb::watch_create_request::FilterType;
        // No key stands for the first one.
        let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key };
        let range = KeyRange::new(key, request.range_end);
        permissions.and_then(|permissions| permissions.read(&range)).map_err(refusal)?;
        if range.is_empty() {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        if request.start_revision < 0 {
            return Err("mvcc: required revision has been compacted".to_owned());
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            id if self.by_id.contains_key(&id) => {
                return Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
            }
            id => id,
        };
        let filters = |filter: FilterType| request.filters.contains(&filter.into());
        let filter =
            WatchFilter { no_put: filters(FilterType::Noput), no_delete: filters(FilterType::Nodelete) };
        let watcher = Watcher::new(store, range.clone(), request.start_revision, filter, request.prev_kv);
        let watch = Watch {
            watcher,
            range,
            fragment: request.fragment,
            told: request.progress_notify.then_some(true),
            given: None,
            due: true,
        };
        self.by_id.insert(id, watch);
        self.due.push_back(id);
        Ok(id)
    }

    fn free_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Ends a watch that the client no longer wants. One that does not exist is no error.
    pub(super) fn cancel(&mut self, store: &Store, id: i64) -> Option<News> {
        self.by_id.remove(&id)?;
        let response = pb::WatchResponse { watch_id: id, canceled: true, ..pb::WatchResponse::default() };
        Some(News::Message(store.revision(), response))
    }

    /// Ends the watches that the user may no longer have.
    pub(super) fn revise(
        &mut self,
        store: &Store,
        permissions: &Result<Permissions, AccessError>,
    ) -> Vec<News> {
        let revision = store.revision();
        let mut ended = Vec::new();
        self.by_id.retain(|id, watch| {
            let allowed = permissions.as_ref().map_err(|error| *error);
            let Err(error) = allowed.and_then(|permissions| permissions.read(&watch.range)) else {
                return true;
            };
            let response = pb::WatchResponse {
                watch_id: *id,
                canceled: true,
                cancel_reason: refusal(error),
                ..pb::WatchResponse::default()
            };
            ended.push(News::Message(revision, response));
            false
        });
        ended
    }

    /// The store has changed.
    pub(super) fn wake(&mut self) {
        for (id, watch) in &mut self.by_id {
            if !watch.due {
                watch.due = true;
                self.due.push_back(*id);
            }
        }
    }

    /// Someone wants to know when all watches have everything that is in `store` now. Without a watch there is nothing to
    /// wait for, and etcd does not answer.
    pub(super) fn request_progress(&mut self, store: &Store) {
        if !self.by_id.is_empty() {
            self.progress_wanted = Some(store.revision());
            self.wake();
        }
    }

    /// Tells those that want to know and were told nothing since the last round how far they are.
    pub(super) fn progress_round(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (id, watch) in &mut self.by_id {
            let Some(told) = &mut watch.told else { continue };
            let is_quiet = !std::mem::replace(told, false);
            if let Some(revision) = watch.given.filter(|_| is_quiet) {
                let response = pb::WatchResponse { watch_id: *id, ..pb::WatchResponse::default() };
                news.push(News::Message(revision, response));
            }
        }
        news
    }

    /// Lets watches that are due step, until one has something to say or enough were looked at for one read.
    pub(super) fn step(&mut self, store: &Store) -> Option<News> {
        for _ in 0..WATCHES_PER_READ {
            let Some(id) = self.due.pop_front() else { break };
            let Some(watch) = self.by_id.get_mut(&id).filter(|watch| watch.due) else { continue };
            watch.due = false;
            match watch.watcher.step(store) {
                WatchStep::UpToDate(revision) => watch.given = Some(revision),
                WatchStep::Waiting => watch.given = None,
                WatchStep::Behind => {
                    watch.given = None;
                    watch.due = true;
                    self.due.push_back(id);
                    // It has looked at as much as one read should.
                    return None;
                }
                WatchStep::Events(batch) => {
                    watch.told = watch.told.map(|_| true);
                    watch.given = Some(batch.revision);
                    if batch.revision < store.revision() {
                        watch.due = true;
                        self.due.push_back(id);
                    }
                    return Some(News::Changes(Delivery::new(id, watch.fragment, batch)));
                }
                WatchStep::Compacted(oldest) => {
                    self.by_id.remove(&id);
                    let response = pb::WatchResponse {
                        watch_id: id,
                        canceled: true,
                        compact_revision: oldest,
                        ..pb::WatchResponse::default()
                    };
                    return Some(News::Message(store.revision(), response));
                }
            }
        }
        let revision = self.progress()?;
        self.progress_wanted = None;
        let response = pb::WatchResponse { watch_id: NO_WATCH, ..pb::WatchResponse::default() };
        Some(News::Message(revision, response))
    }

    /// What all watches were given, once that answers a request for progress.
    fn progress(&self) -> Option<i64> {
        let wanted = self.progress_wanted?;
        // One that was not given anything yet comes first.
        let given = self.by_id.values().map(|watch| watch.given).min()?;
        given.filter(|given| *given >= wanted)
    }
}

/// An error as etcd writes it into a watch: as its Go client would print it.
fn refusal(error: AccessError) -> String {
    let code = match error {
        AccessError::Anonymous => "InvalidArgument",
        AccessError::Denied => "PermissionDenied",
    };
    format!("rpc error: code = {code} desc = {error}")
}

#[cfg(test)]
mod tests;

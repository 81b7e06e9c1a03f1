//! The watches of one stream: what each is about and how far it is. Decides what is said next; says nothing itself.
//!
//! ```text
//! create ─► behind ── step ─► changes ─► behind again
//!   │         ▲         ├───► compacted ─► ended
//!   │         │ lost    ▼
//!   └──────► up to date ◄─► found: what the hub has for it ── step ─► changes
//! ```
//!
//! Invariants:
//! - Of what a watch has not been given, what the hub has found for it is kept, within bounds. Everything else is in the
//!   store's history.
//! - A watch that is up to date, with nothing found for it, was given everything up to the position that the hub had when
//!   something was last taken from it. It costs nothing until the hub finds something.
//! - What is said about progress covers only what was given before: no watch is asked to step while something is on its way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use landbridge_kvstore_store::{Event, KeyRange, Store, WatchFilter, WatchStep, Watcher};

use super::super::proto::etcdserverpb as pb;
use super::counters::{Counted, Kind};
use super::delivery::Delivery;
use super::hub::{Link, Registration};
use crate::access::{AccessError, Permissions};
use crate::engine::Engine;
use crate::planted::{PlantedBug, planted};

/// Stands for the whole stream, or for a watch that could not be made.
pub(super) const NO_WATCH: i64 = -1;

/// Watches looked at in one turn, so that other streams do not wait for long.
const WATCHES_PER_TURN: usize = 128;

/// Where the state is looked at, in short.
pub(super) trait View {
    fn read<R>(&self, look: impl FnOnce(&Store) -> R) -> R;
}

impl View for Engine {
    fn read<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        Self::read(self, look)
    }
}

/// All watches of a stream.
#[derive(Debug)]
pub(super) struct Watches {
    by_id: BTreeMap<i64, Watch>,
    next_id: i64,
    /// Those that have something to do, each once; some may have ended since.
    due: VecDeque<i64>,
    /// How many have something that was found for them.
    with_found: usize,
    /// What the hub had gone through when something was last taken from it.
    position: i64,
    /// A request for progress waits until all watches were given this revision.
    progress_wanted: Option<i64>,
    link: Link,
}

#[derive(Debug)]
struct Watch {
    watcher: Watcher,
    range: KeyRange,
    /// The first revision that it wants to hear of, in any way; 0 if it did not say.
    start: i64,
    fragment: bool,
    /// Whether it was told something since the last round of progress; `None` if it does not want to know of progress.
    told: Option<bool>,
    pace: Pace,
    /// Whether it is among those due.
    due: bool,
    _registration: Registration,
}

#[derive(Debug)]
enum Pace {
    /// It looks at the history.
    Behind { _slow: Counted },
    /// It was given all but this, which the hub has found.
    UpToDate(Vec<Event>),
}

/// What there is to say.
#[derive(Debug)]
pub(super) enum News {
    /// Changes for one watch.
    Changes(Delivery),
    /// A message without changes, from the store at this revision.
    Message(i64, pb::WatchResponse),
}

impl Watch {
    /// What it was given everything up to, if that is something to tell it.
    fn given(&self, position: i64) -> Option<i64> {
        let Pace::UpToDate(found) = &self.pace else { return None };
        let given = position.max(self.watcher.next_revision() - 1);
        // As in etcd's newer versions, nothing is heard of what is before the start that was asked for.
        (found.is_empty() && given >= self.start).then_some(given)
    }
}

impl Watches {
    /// No watches yet.
    pub(super) fn new(link: Link) -> Self {
        Self {
            by_id: BTreeMap::new(),
            next_id: 0,
            due: VecDeque::new(),
            with_found: 0,
            position: 0,
            progress_wanted: None,
            link,
        }
    }

    /// The way to the hub.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

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
        view: &impl View,
        request: pb::WatchCreateRequest,
        permissions: Result<Arc<Permissions>, AccessError>,
    ) -> News {
        let mut response = pb::WatchResponse { created: true, ..pb::WatchResponse::default() };
        let revision = match self.try_create(view, request, permissions) {
            Ok((id, revision)) => {
                response.watch_id = id;
                revision
            }
            Err(reason) => {
                response.watch_id = NO_WATCH;
                response.canceled = true;
                response.cancel_reason = reason;
                view.read(Store::revision)
            }
        };
        News::Message(revision, response)
    }

    fn try_create(
        &mut self,
        view: &impl View,
        request: pb::WatchCreateRequest,
        permissions: Result<Arc<Permissions>, AccessError>,
    ) -> Result<(i64, i64), String> {
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
        // First the hub: what is not in the store yet will be found.
        let registration = self.link.register(id, range.clone(), filter);
        let (revision, watcher) = view.read(|store| {
            let watcher = Watcher::new(store, range.clone(), request.start_revision, filter, request.prev_kv);
            (store.revision(), watcher)
        });
        let is_behind = watcher.next_revision() <= revision;
        let pace = if is_behind { self.behind() } else { Pace::UpToDate(Vec::new()) };
        let watch = Watch {
            watcher,
            range,
            start: request.start_revision,
            fragment: request.fragment,
            told: request.progress_notify.then_some(true),
            pace,
            due: is_behind,
            _registration: registration,
        };
        self.by_id.insert(id, watch);
        if is_behind {
            self.due.push_back(id);
        }
        Ok((id, revision))
    }

    fn behind(&self) -> Pace {
        Pace::Behind { _slow: self.link.counters().count(Kind::SlowWatcher) }
    }

    fn free_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn remove(&mut self, id: i64) -> Option<Watch> {
        let watch = self.by_id.remove(&id)?;
        if matches!(&watch.pace, Pace::UpToDate(found) if !found.is_empty()) {
            self.with_found -= 1;
        }
        Some(watch)
    }

    /// Ends a watch that the client no longer wants. One that does not exist is no error.
    pub(super) fn cancel(&mut self, view: &impl View, id: i64) -> Option<News> {
        self.remove(id)?;
        let response = pb::WatchResponse { watch_id: id, canceled: true, ..pb::WatchResponse::default() };
        Some(News::Message(view.read(Store::revision), response))
    }

    /// Ends the watches that the user may no longer have.
    pub(super) fn revise(
        &mut self,
        view: &impl View,
        permissions: &Result<Arc<Permissions>, AccessError>,
    ) -> Vec<News> {
        let refused = |watch: &Watch| {
            let allowed = permissions.as_ref().map_err(|error| *error);
            allowed.and_then(|permissions| permissions.read(&watch.range)).err()
        };
        let refused: Vec<(i64, AccessError)> =
            self.by_id.iter().filter_map(|(id, watch)| Some((*id, refused(watch)?))).collect();
        let revision = view.read(Store::revision);
        let mut ended = Vec::new();
        for (id, error) in refused {
            self.remove(id);
            let response = pb::WatchResponse {
                watch_id: id,
                canceled: true,
                cancel_reason: refusal(error),
                ..pb::WatchResponse::default()
            };
            ended.push(News::Message(revision, response));
        }
        ended
    }

    /// Takes what the hub has found, unless there is still something of the last time.
    pub(super) fn take(&mut self) {
        if self.with_found > 0 {
            return;
        }
        let (position, taken) = self.link.take();
        self.position = position;
        if let Some(all) = taken.all_behind {
            let ids: Vec<i64> = self.by_id.keys().copied().collect();
            for id in ids {
                self.fall_behind(id, taken.behind.get(&id).copied().unwrap_or(all));
            }
        } else {
            for (id, first) in taken.behind {
                self.fall_behind(id, first);
            }
        }
        for (id, event) in taken.events {
            let Some(watch) = self.by_id.get_mut(&id) else { continue };
            // One that is behind will see it in the history. What is before its next revision it has seen there.
            if event.revision() < watch.watcher.next_revision() {
                continue;
            }
            let Pace::UpToDate(found) = &mut watch.pace else { continue };
            if planted(PlantedBug::EventDropped) && event.revision() % 3 == 0 {
                continue;
            }
            if found.is_empty() {
                self.with_found += 1;
                watch.due = true;
                self.due.push_back(id);
            }
            if planted(PlantedBug::EventRepeated) && event.revision() % 3 == 0 {
                found.push(event.clone());
            }
            found.push(event);
        }
    }

    /// From `first` on, a watch has to look at the history.
    fn fall_behind(&mut self, id: i64, first: i64) {
        let behind = self.behind();
        let Some(watch) = self.by_id.get_mut(&id) else { return };
        if let Pace::UpToDate(_) = watch.pace {
            watch.watcher.skip_to(first);
            watch.pace = behind;
            watch.due = true;
            self.due.push_back(id);
        }
    }

    /// Someone wants to know when all watches have everything that is in the store now. Without a watch there is nothing to
    /// wait for, and etcd does not answer.
    pub(super) fn request_progress(&mut self, view: &impl View) {
        if self.by_id.is_empty() {
            return;
        }
        let revision = view.read(Store::revision);
        self.progress_wanted = Some(revision);
        self.link.reach(revision);
        self.take();
        self.await_progress();
    }

    /// Tells those that want to know and were told nothing since the last round how far they are.
    pub(super) fn progress_round(&mut self, view: &impl View) -> Vec<News> {
        self.link.reach(view.read(Store::revision));
        self.take();
        let mut news = Vec::new();
        for (id, watch) in &mut self.by_id {
            let given = watch.given(self.position);
            let Some(told) = &mut watch.told else { continue };
            let is_quiet = !std::mem::replace(told, false);
            if let Some(revision) = given.filter(|_| is_quiet) {
                let response = pb::WatchResponse { watch_id: *id, ..pb::WatchResponse::default() };
                news.push(News::Message(revision, response));
            }
        }
        news
    }

    /// Lets watches that are due step, until one has something to say or enough were looked at for one turn.
    pub(super) fn step(&mut self, view: &impl View) -> Option<News> {
        self.take();
        for _ in 0..WATCHES_PER_TURN {
            let Some(id) = self.due.pop_front() else { break };
            let Some(watch) = self.by_id.get_mut(&id).filter(|watch| watch.due) else { continue };
            watch.due = false;
            let stepped = match &mut watch.pace {
                Pace::UpToDate(found) => {
                    let (found, position) = (std::mem::take(found), self.position);
                    self.with_found -= 1;
                    let watcher = &mut watch.watcher;
                    WatchStep::Events(if watcher.wants_previous() {
                        view.read(|store| watcher.give(found, position, Some(store)))
                    } else {
                        watcher.give(found, position, None)
                    })
                }
                Pace::Behind { .. } => {
                    let (step, newest) = view.read(|store| (watch.watcher.step(store), store.revision()));
                    if watch.watcher.next_revision() > newest {
                        watch.pace = Pace::UpToDate(Vec::new());
                    } else {
                        // Behind the others that are due.
                        watch.due = true;
                        self.due.push_back(id);
                    }
                    step
                }
            };
            match stepped {
                WatchStep::UpToDate(_) | WatchStep::Waiting => {}
                // It has looked at as much as one turn should.
                WatchStep::Behind => return None,
                WatchStep::Events(batch) => {
                    watch.told = watch.told.map(|_| true);
                    self.link.counters().sent(batch.events.len());
                    return Some(News::Changes(Delivery::new(id, watch.fragment, batch)));
                }
                WatchStep::Compacted(oldest) => {
                    self.remove(id);
                    let response = pb::WatchResponse {
                        watch_id: id,
                        canceled: true,
                        compact_revision: oldest,
                        ..pb::WatchResponse::default()
                    };
                    // etcd says no revision here.
                    return Some(News::Message(0, response));
                }
            }
        }
        let progress = self.progress();
        self.await_progress();
        let revision = progress?;
        self.progress_wanted = None;
        let response = pb::WatchResponse { watch_id: NO_WATCH, ..pb::WatchResponse::default() };
        Some(News::Message(revision, response))
    }

    /// What all watches were given, once that answers a request for progress.
    fn progress(&self) -> Option<i64> {
        let wanted = self.progress_wanted.filter(|_| self.due.is_empty())?;
        // One that was not given anything yet comes first.
        let given = self.by_id.values().map(|watch| watch.given(self.position)).min()?;
        // One that is ahead of the hub may begin after what the others were given: it hears nothing of before.
        let started = |given: i64| self.by_id.values().all(|watch| watch.start <= given);
        given.filter(|given| *given >= wanted && started(*given))
    }

    /// If only the position of the hub keeps an answer back, it wakes the stream when it is there.
    fn await_progress(&mut self) {
        let Some(wanted) = self.progress_wanted.filter(|_| !self.is_due()) else { return };
        let start = self.by_id.values().map(|watch| watch.start).max().unwrap_or(wanted);
        self.link.wake_at(wanted.max(start));
    }
}

/// An error as etcd writes it into a watch: as its Go client would print it.
fn refusal(error: AccessError) -> String {
    let code = match error {
        AccessError::Anonymous | AccessError::OldRevision => "InvalidArgument",
        AccessError::InvalidToken => "Unauthenticated",
        // A user that is gone is not told so here.
        AccessError::Denied | AccessError::UserNotFound => "PermissionDenied",
    };
    format!("rpc error: code = {code} desc = {error}")
}

#[cfg(test)]
mod tests;

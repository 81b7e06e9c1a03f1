//! Watches: one stream carries many.
//!
//! ```text
//! requests ──┐
//! rules ─────┼─► Session ── one at a time ─► messages
//! found ─────┘     └─ Watches: how far each is ── those behind: short reads ─► the store's history
//!   └─ Hub ◄─ changes as they are applied
//! ```
//!
//! Invariants:
//! - A stream is driven by its connection, which asks for the next message when there is room for it. So there is no task
//!   to own, and no queue that could hold up a writer: a slow reader fills its inbox, then what it has not read is in the
//!   history.
//! - A write costs only the streams that it is about.
//! - While a message is on its way nothing else is decided: no change follows the message that a watch has ended, and what
//!   is said about progress comes after the changes it speaks of.
//! - Changed rules are seen before the next message.

mod counters;
mod delivery;
mod hub;
mod inbox;
mod watches;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, unfold};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};
use tonic::{Request, Response, Status, Streaming};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service, needs_leader};
use crate::access::{AccessError, Identity, Permissions, Rights};
pub use counters::WatchCounters;
use delivery::Delivery;
pub(crate) use hub::Hub;
use watches::{News, Watches};

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::watch_server::Watch for Service {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let session = Box::new(Session::new(self.clone(), request));
        let responses = unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(end) => Some((Err(end), None)),
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

/// One stream of watches.
struct Session {
    service: Service,
    peer: Peer,
    /// Who it was when it last asked for a watch. What it has lives on when its token ends, but not when its rights do.
    identity: Option<Identity>,
    /// What is rarely the reason to wake, and looked at only if it is.
    rare: FuturesUnordered<Pin<Box<dyn Future<Output = Rare> + Send>>>,
    rights: Rights,
    watches: Watches,
    /// What is on its way.
    delivery: Option<Delivery>,
    /// Behind that; a message for each watch at most.
    news: VecDeque<(i64, pb::WatchResponse)>,
    progress: Pin<Box<Sleep>>,
}

/// What a session rarely waits for.
enum Rare {
    /// The stream has to end, whatever it is about.
    End(Status),
    /// Rights may have changed.
    Rights(Rights),
    /// The client has asked for something, with the rest of its requests.
    Request(Box<(pb::WatchRequest, Streaming<pb::WatchRequest>)>),
    /// The client asks for nothing more; its watches live on.
    NoMore,
}

/// What a session waits for.
enum Wake {
    Rare(Rare),
    Due,
    Found,
    Progress,
}

impl Session {
    fn new(service: Service, request: Request<Streaming<pb::WatchRequest>>) -> Self {
        let progress = Box::pin(sleep(jittered(&service)));
        let (ending, needs_leader) = (service.clone(), needs_leader(request.metadata()));
        let peer = Peer::of(request.extensions());
        let rare = FuturesUnordered::<Pin<Box<dyn Future<Output = Rare> + Send>>>::new();
        rare.push(Box::pin(async move { Rare::End(ending.stream_end(needs_leader).await) }));
        rare.push(Box::pin(changed(service.rights())));
        rare.push(Box::pin(next_request(request.into_inner())));
        Self {
            peer,
            rare,
            identity: None,
            rights: service.rights(),
            watches: Watches::new(service.watch_hub().link()),
            delivery: None,
            news: VecDeque::new(),
            progress,
            service,
        }
    }

    /// The next message, or why the stream ends.
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            if self.rights.have_changed() {
                self.revise();
            }
            if let Some(response) = self.next_ready() {
                return Ok(response);
            }
            match self.wait().await {
                Wake::Rare(Rare::End(status)) => return Err(status),
                Wake::Rare(Rare::Rights(rights)) => {
                    self.rare.push(Box::pin(changed(rights)));
                    self.revise();
                }
                Wake::Rare(Rare::Request(request)) => {
                    let (request, others) = *request;
                    self.rare.push(Box::pin(next_request(others)));
                    self.take(request);
                }
                Wake::Rare(Rare::NoMore) => {}
                Wake::Due => {
                    let news = self.watches.step(self.service.engine());
                    if news.is_none() {
                        // The way through a long history is shared with others.
                        tokio::task::yield_now().await;
                    }
                    self.announce(news);
                }
                Wake::Found => self.watches.take(),
                Wake::Progress => {
                    self.progress.as_mut().reset(Instant::now() + jittered(&self.service));
                    let news = self.watches.progress_round(self.service.engine());
                    self.announce(news);
                }
            }
        }
    }

    /// Ends what the rules no longer allow, what is on its way included.
    fn revise(&mut self) {
        let permissions = match &self.identity {
            Some(identity) => self.service.gate().permissions_by_name(identity),
            None => self.service.permissions(&self.peer),
        };
        let ended = self.watches.revise(self.service.engine(), &permissions);
        self.delivery = self.delivery.take().filter(|delivery| self.watches.contains(delivery.watch_id));
        self.announce(ended);
    }

    /// What can be sent without waiting.
    fn next_ready(&mut self) -> Option<pb::WatchResponse> {
        if let Some(delivery) = &mut self.delivery {
            let part = delivery.next_part(self.service.settings().max_request_bytes);
            if let Some(part) = part {
                return Some(pb::WatchResponse {
                    header: Some(self.service.header(part.revision)),
                    watch_id: delivery.watch_id,
                    events: part.events,
                    fragment: part.fragment,
                    ..pb::WatchResponse::default()
                });
            }
            self.delivery = None;
        }
        let (revision, response) = self.news.pop_front()?;
        Some(pb::WatchResponse { header: Some(self.service.header(revision)), ..response })
    }

    async fn wait(&mut self) -> Wake {
        tokio::select! {
            biased;
            // Never empty: the end is in it.
            Some(rare) = self.rare.next() => Wake::Rare(rare),
            () = std::future::ready(()), if self.watches.is_due() => Wake::Due,
            () = self.watches.link().woken() => Wake::Found,
            () = &mut self.progress, if self.watches.want_progress() => Wake::Progress,
        }
    }

    /// What the peer may do as who it is now.
    fn identify(&mut self) -> Result<Arc<Permissions>, AccessError> {
        let identity = self.service.gate().identify(&self.peer)?;
        let permissions = self.service.gate().permissions(&identity);
        self.identity = Some(identity);
        permissions
    }

    fn take(&mut self, request: pb::WatchRequest) {
        use pb::watch_request::RequestUnion;
        let news = match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                let permissions = self.identify();
                Some(self.watches.create(self.service.engine(), request, permissions))
            }
            Some(RequestUnion::CancelRequest(request)) => {
                self.watches.cancel(self.service.engine(), request.watch_id)
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watches.request_progress(self.service.engine());
                None
            }
            None => None,
        };
        self.announce(news);
    }

    fn announce(&mut self, news: impl IntoIterator<Item = News>) {
        for news in news {
            match news {
                News::Changes(delivery) => self.delivery = Some(delivery),
                News::Message(revision, response) => self.news.push_back((revision, response)),
            }
        }
    }
}

async fn changed(mut rights: Rights) -> Rare {
    rights.changed().await;
    Rare::Rights(rights)
}

async fn next_request(mut requests: Streaming<pb::WatchRequest>) -> Rare {
    match requests.message().await {
        Ok(Some(request)) => Rare::Request(Box::new((request, requests))),
        Ok(None) => Rare::NoMore,
        Err(error) => Rare::End(error),
    }
}

/// The time until the next round of progress: up to a tenth longer than set, so that streams do not all speak at once.
fn jittered(service: &Service) -> std::time::Duration {
    service.settings().progress_interval.mul_f64(1.0 + fastrand::f64() / 10.0)
}

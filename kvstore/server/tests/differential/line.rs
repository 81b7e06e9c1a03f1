//! One stream of watches to one store: what came is sorted by watch, and waits to be compared.

use std::collections::{BTreeMap, VecDeque};

use landbridge_kvstore_server::grpc::proto::{etcdserverpb as pb, mvccpb};
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::stores::PATIENCE;

/// What a watch was told.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Events {
        revision: i64,
        events: Vec<mvccpb::Event>,
        fragment: bool,
    },
    /// It has been told everything up to here, it is said.
    Progress {
        revision: i64,
        asked_for: bool,
    },
    End(pb::WatchResponse),
}

/// One stream.
pub(crate) struct Line {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: mpsc::UnboundedReceiver<Result<pb::WatchResponse, tonic::Status>>,
    /// Reads always: what is not read would hold up the connection's other answers.
    _reader: JoinSet<()>,
    queues: BTreeMap<i64, VecDeque<News>>,
    /// Revisions of answers about the whole stream.
    pub progress: Vec<i64>,
}

impl Line {
    pub(crate) fn open(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let (sender, responses) = mpsc::unbounded_channel();
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut stream = match client.watch(ReceiverStream::new(receiver)).await {
                Ok(response) => response.into_inner(),
                Err(error) => return drop(sender.send(Err(error))),
            };
            while let Some(response) = stream.message().await.transpose() {
                let ended = response.is_err();
                if sender.send(response).is_err() || ended {
                    return;
                }
            }
        });
        Self { requests, responses, _reader: reader, queues: BTreeMap::new(), progress: Vec::new() }
    }

    pub(crate) async fn send(&self, request: RequestUnion) {
        // A stream that has ended is noticed when an answer is waited for.
        let _ = self.requests.send(pb::WatchRequest { request_union: Some(request) }).await;
    }

    /// Makes a watch and returns what was said to that.
    pub(crate) async fn create(
        &mut self,
        request: pb::WatchCreateRequest,
    ) -> Result<pb::WatchResponse, String> {
        self.send(RequestUnion::CreateRequest(request)).await;
        loop {
            if let Some(created) = self.read(PATIENCE).await? {
                if !created.canceled && self.queues.insert(created.watch_id, VecDeque::new()).is_some() {
                    return Err(format!("the id of a watch is given twice: {created:?}"));
                }
                return Ok(created);
            }
        }
    }

    /// Waits until there is so much for a watch, and takes it.
    pub(crate) async fn take(&mut self, id: i64, events: usize, end: bool) -> Result<VecDeque<News>, String> {
        loop {
            let queue = self.queues.get_mut(&id).ok_or_else(|| format!("there is no watch {id}"))?;
            let count: usize = queue.iter().map(News::count).sum();
            let ended = queue.iter().any(|news| matches!(news, News::End(_)));
            if (count >= events && ended >= end) || ended {
                let taken = std::mem::take(queue);
                if ended {
                    self.queues.remove(&id);
                }
                return Ok(taken);
            }
            self.expect_none(PATIENCE).await.map_err(|error| {
                format!("{error}; watch {id} waits for {events} events and has {count}, for its end: {end}")
            })?;
        }
    }

    /// Waits for the answer to a question for progress.
    pub(crate) async fn wait_for_progress(&mut self, patience: Duration) -> Result<(), String> {
        let before = self.progress.len();
        let deadline = Instant::now() + patience;
        while self.progress.len() == before {
            match timeout_at(deadline, self.expect_none(PATIENCE)).await {
                Ok(read) => read?,
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn expect_none(&mut self, patience: Duration) -> Result<(), String> {
        match self.read(patience).await? {
            Some(created) => Err(format!("nobody asked for a watch: {created:?}")),
            None => Ok(()),
        }
    }

    /// Reads one message; returns it if it is about a new watch.
    async fn read(&mut self, patience: Duration) -> Result<Option<pb::WatchResponse>, String> {
        let response =
            timeout(patience, self.responses.recv()).await.map_err(|_| "nothing comes".to_owned())?;
        let response =
            response.ok_or("the stream ended")?.map_err(|error| format!("the stream ended: {error}"))?;
        if response.created {
            return Ok(Some(response));
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let progress = response.events.is_empty() && !response.canceled;
        if progress && response.watch_id == -1 {
            self.progress.push(revision);
            // What ended is no longer on the stream, even if nobody has looked at that yet.
            for queue in self.queues.values_mut().filter(|queue| !matches!(queue.back(), Some(News::End(_))))
            {
                queue.push_back(News::Progress { revision, asked_for: true });
            }
            return Ok(None);
        }
        let Some(queue) = self.queues.get_mut(&response.watch_id) else {
            return Err(format!("there is no such watch: {response:?}"));
        };
        queue.push_back(if response.canceled {
            News::End(response)
        } else if progress {
            News::Progress { revision, asked_for: false }
        } else {
            News::Events { revision, events: response.events, fragment: response.fragment }
        });
        Ok(None)
    }
}

impl News {
    /// How many events it has.
    fn count(&self) -> usize {
        if let Self::Events { events, .. } = self { events.len() } else { 0 }
    }
}

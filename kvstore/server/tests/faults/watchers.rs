//! One who watches everything, at one member and then at another, and goes on where it stopped.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::grpc::proto::mvccpb::event::EventType;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::clients::Channels;
use crate::order::Event;
use crate::plan::MEMBERS;

/// What came, message by message, and when.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) messages: Vec<Vec<Event>>,
    pub(crate) times: Vec<Instant>,
    /// Streams that it took.
    pub(crate) streams: usize,
    /// What a watch must not be told here.
    pub(crate) refusals: Vec<String>,
}

impl Seen {
    pub(crate) fn newest(&self) -> i64 {
        self.messages.last().and_then(|message| message.last()).map_or(1, |event| event.revision)
    }
}

/// Goes on until it is stopped.
pub(crate) async fn watch(
    mut member: usize,
    mut channels: Channels,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
) {
    let watching = async {
        loop {
            if let Some(channel) = channels.to(member) {
                seen.lock().unwrap().streams += 1;
                // How it ended does not matter: the next one begins where it was.
                let _ = watch_once(channel, &seen).await;
            }
            // The next one is at another member.
            member = (member + 1) % MEMBERS;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    stop.run_until_cancelled(watching).await;
}

async fn watch_once(channel: Channel, seen: &Mutex<Seen>) -> Result<(), tonic::Status> {
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: seen.lock().unwrap().newest() + 1,
        ..Default::default()
    };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut responses = WatchClient::new(channel).watch(requests).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let mut seen = seen.lock().unwrap();
        if response.canceled {
            // A member that stops says so; anything else is wrong, for all of the history is kept.
            if response.compact_revision != 0 {
                seen.refusals.push(format!("compacted at {}", response.compact_revision));
            }
            return Ok(());
        }
        let events: Vec<Event> = response.events.iter().map(event).collect();
        if !events.is_empty() {
            seen.messages.push(events);
            seen.times.push(Instant::now());
        }
    }
    Ok(())
}

fn event(event: &landbridge_kvstore_server::grpc::proto::mvccpb::Event) -> Event {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kv = event.kv.clone().unwrap_or_default();
    let is_put = event.r#type == i32::from(EventType::Put);
    Event {
        key: text(kv.key()),
        value: is_put.then(|| text(kv.value())),
        revision: kv.mod_revision(),
        created: kv.create_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

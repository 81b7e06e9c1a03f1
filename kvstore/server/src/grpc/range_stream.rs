//! A range in pieces, all of them at one revision: the server holds one piece at a time, however long the range is.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use landbridge_kvstore_store::{KeyRange, RangeRequest, Store};
use prost::Message;
use tonic::{Request, Response, Status};

use super::convert;
use super::kv::{held, room};
use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;
use crate::access::Permissions;
use crate::held::Held;

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

/// Keys of the first piece; the next ones grow or shrink until they are about as large as a request may be, as in etcd.
const FIRST_KEYS: i64 = 10;

impl Service {
    pub(super) async fn range_in_pieces(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let (peer, held) = (Peer::of(request.extensions()), held(request.extensions()));
        let request = request.into_inner();
        let (serializable, keys_only) = (request.serializable, request.keys_only);
        let is_sorted = (request.sort_target, request.sort_order) != (0, 0)
            && (request.sort_target, request.sort_order) != (0, 1);
        let is_filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let request = convert::range(&request)?;
        if is_sorted {
            return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
        }
        if is_filtered {
            return Err(Status::unimplemented("RangeStream does not support revision filters"));
        }
        let check = |permissions: &Permissions| permissions.read(&request.range);
        let permissions = self.permitted(&peer, check).await?;
        let permissions = self.confirm(&peer, permissions, serializable, check).await?;
        let pieces = RangePieces {
            service: self.clone(),
            held,
            permissions,
            left: if request.limit > 0 { request.limit } else { i64::MAX },
            next_keys: FIRST_KEYS,
            count: 0,
            header: None,
            keys_only,
            request,
        };
        let pieces = unfold(Some(pieces), |pieces| async {
            let mut pieces = pieces?;
            room(pieces.held.as_ref()).await;
            match pieces.next() {
                Ok((piece, is_last)) => Some((Ok(piece), (!is_last).then_some(pieces))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}

/// What is left of a range.
struct RangePieces {
    service: Service,
    held: Option<Held>,
    permissions: Arc<Permissions>,
    /// Begins after the last key that was sent.
    request: RangeRequest,
    keys_only: bool,
    /// How many keys may still be sent.
    left: i64,
    next_keys: i64,
    /// How many keys the whole range has.
    count: i64,
    /// Of the first piece.
    header: Option<pb::ResponseHeader>,
}

impl RangePieces {
    /// The next piece, and whether it is the last.
    fn next(&mut self) -> Result<(pb::RangeStreamResponse, bool), Status> {
        self.request.limit = self.next_keys.min(self.left);
        let look = |store: &Store| (store.revision(), store.range(&self.request));
        let (revision, found) = self.service.look_as(&self.permissions, look)?;
        let found = found.map_err(status::refused)?;
        self.service.counters().operations.ranges.add(1);
        if self.header.is_none() {
            self.header = Some(self.service.header(revision));
            self.count = found.count;
            if self.request.revision <= 0 {
                self.request.revision = revision;
            }
        }
        let last = found.kvs.last().map(|kv| Bytes::copy_from_slice(kv.key()));
        self.left -= i64::try_from(found.kvs.len()).unwrap_or(i64::MAX);
        let piece = convert::range_response(pb::ResponseHeader::default(), &found, self.keys_only);
        let is_last = !found.more || self.left == 0;
        let bytes = piece.encoded_len();
        let target = self.service.settings().max_request_bytes;
        if bytes < target / 2 {
            self.next_keys = self.next_keys.saturating_mul(2);
        } else if bytes > target.saturating_mul(2) {
            self.next_keys = (self.next_keys / 2).max(1);
        }
        let piece = if is_last {
            pb::RangeResponse { header: self.header, count: self.count, ..piece }
        } else {
            pb::RangeResponse { header: None, count: 0, more: false, ..piece }
        };
        if let Some(last) = last {
            self.request.range = after(&self.request.range, &last);
        }
        Ok((pb::RangeStreamResponse { range_response: Some(piece) }, is_last))
    }
}

/// What of a range follows a key of it.
fn after(range: &KeyRange, key: &[u8]) -> KeyRange {
    let next = Bytes::from([key, &[0]].concat());
    match range {
        KeyRange::Single(_) | KeyRange::From(_) => KeyRange::From(next),
        KeyRange::Between(_, end) => KeyRange::Between(next, end.clone()),
    }
}

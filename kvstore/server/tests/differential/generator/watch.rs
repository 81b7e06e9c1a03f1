//! Watches: a few streams with a few watches each.

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;

use super::{Generator, LARGE_VALUE};
use crate::operation::{COMPACTED, NOW, Operation};

/// How many streams there are at a time.
const STREAMS: usize = 3;
/// Ids that watches ask for are below.
const IDS: i64 = 5;
/// Puts of a long catch-up: more bytes than etcd sends in one message to a watch that accepts fragments, which are 512 KiB
/// on top of the largest request.
const LONG: i64 = 90;

impl Generator {
    fn stream(&mut self) -> usize {
        self.dice.usize(..STREAMS)
    }

    pub(super) fn watch(&mut self) -> Operation {
        let (key, range_end) = self.key_range();
        let start_revision = match self.dice.u32(..20) {
            0..8 => 0,
            8 => NOW + 1,
            9 => NOW + self.dice.i64(2..20),
            10 => COMPACTED,
            11 => COMPACTED - 1,
            12 => COMPACTED + 1,
            13 => 1,
            14 => NOW,
            15 if self.chance(300) => self.pick(&[-1, -2, i64::MIN, i64::MAX]),
            15..18 => self.past(30),
            _ => self.past(200),
        };
        let filters = match self.dice.u32(..10) {
            0 => vec![FilterType::Noput.into()],
            1 => vec![FilterType::Nodelete.into()],
            2 => vec![FilterType::Noput.into(), FilterType::Nodelete.into()],
            _ => Vec::new(),
        };
        let request = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.chance(200),
            filters,
            prev_kv: self.chance(400),
            watch_id: if self.chance(200) { self.dice.i64(1..IDS) } else { 0 },
            fragment: self.chance(200),
        };
        Operation::Watch { stream: self.stream(), request }
    }

    pub(super) fn cancel_watch(&mut self) -> Operation {
        Operation::CancelWatch { stream: self.stream(), watch_id: self.dice.i64(0..2 * IDS) }
    }

    pub(super) fn request_progress(&mut self) -> Operation {
        Operation::RequestProgress { stream: self.stream() }
    }

    pub(super) fn close_stream(&mut self) -> Operation {
        Operation::CloseStream { stream: self.stream() }
    }

    /// So many bytes that a watch from before them cannot be told in one message.
    pub(super) fn long_catch_up(&mut self) -> Operation {
        let stream = self.stream();
        for number in 0..LONG {
            let key = format!("k/{:02}", number % 10).into();
            let value = vec![b'l'; LARGE_VALUE - 100].into();
            self.planned.push_back(Operation::Put(pb::PutRequest { key, value, ..Default::default() }));
        }
        for fragment in [true, false] {
            let request = pb::WatchCreateRequest {
                key: Bytes::from_static(b"k/"),
                range_end: Bytes::from_static(b"k0"),
                start_revision: NOW - LONG + 1,
                fragment,
                ..Default::default()
            };
            self.planned.push_back(Operation::Watch { stream, request });
        }
        self.planned.push_back(Operation::Sync);
        Operation::CloseStream { stream }
    }
}

//! Reads and writes of keys, and compactions.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};

use super::{Generator, TOO_LARGE_VALUE};
use crate::operation::{COMPACTED, NOW, Operation};

impl Generator {
    /// A revision that may be behind the current one by this much.
    pub(super) fn past(&mut self, most: i64) -> i64 {
        NOW - self.dice.i64(0..=most)
    }

    /// A bound on revisions, mostly none.
    fn bound(&mut self) -> i64 {
        match self.dice.u32(..20) {
            0 => -1,
            1 => NOW + 1,
            2..5 => self.past(20),
            5 => self.past(500),
            _ => 0,
        }
    }

    /// A revision to read at, mostly the current one.
    pub(super) fn read_revision(&mut self) -> i64 {
        match self.dice.u32(..40) {
            0 => -1,
            1 => NOW + 1,
            2 => NOW,
            3 => COMPACTED,
            4 => COMPACTED - 1,
            5 => COMPACTED + 1,
            6 => 1,
            7..14 => self.past(30),
            14 => self.past(300),
            _ => 0,
        }
    }

    pub(super) fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.key_range();
        let mut request = pb::RangeRequest { key, range_end, ..Default::default() };
        request.limit = match self.dice.u32(..10) {
            0..5 => 0,
            5 => -1,
            _ => self.dice.i64(1..8),
        };
        request.revision = self.read_revision();
        if self.chance(500) {
            let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
            let targets = [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ];
            request.sort_order = self.pick(&orders).into();
            request.sort_target = self.pick(&targets).into();
        }
        request.serializable = self.chance(300);
        request.keys_only = self.chance(150);
        request.count_only = self.chance(100);
        if self.chance(300) {
            request.min_mod_revision = self.bound();
            request.max_mod_revision = self.bound();
            request.min_create_revision = self.bound();
            request.max_create_revision = self.bound();
        }
        request
    }

    pub(super) fn put(&mut self) -> pb::PutRequest {
        let mut request = pb::PutRequest { key: self.key(), value: self.value(), ..Default::default() };
        if self.chance(3) {
            request.value = vec![b'V'; TOO_LARGE_VALUE].into();
        }
        if self.chance(250) {
            request.lease = self.lease_id();
        }
        self.put_options(&mut request);
        request
    }

    pub(super) fn put_options(&mut self, request: &mut pb::PutRequest) {
        request.prev_kv = self.chance(300);
        // With what must not be given beside it, once in a while.
        if self.chance(80) {
            request.ignore_value = true;
            if !self.chance(100) {
                request.value.clear();
            }
        }
        if self.chance(80) {
            request.ignore_lease = true;
            if !self.chance(100) {
                request.lease = 0;
            }
        }
    }

    pub(super) fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = match self.dice.u32(..4) {
            0 => self.key_range(),
            _ => (self.key(), bytes::Bytes::new()),
        };
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.chance(400) }
    }

    pub(super) fn hash_kv(&mut self) -> Operation {
        let past = self.past(30);
        let revision =
            self.pick(&[0, -1, NOW, NOW + 1, COMPACTED, COMPACTED - 1, COMPACTED - 2, COMPACTED + 1, past]);
        Operation::HashKv(pb::HashKvRequest { revision })
    }

    pub(super) fn compact(&mut self) -> Operation {
        let revision = match self.dice.u32(..12) {
            0..2 => -1,
            2 => COMPACTED,
            3 => NOW + 1,
            4 => NOW,
            5 => COMPACTED + 1,
            6..9 => self.past(20),
            _ => self.past(200),
        };
        Operation::Compact(pb::CompactionRequest { revision, physical: self.chance(500) })
    }
}

//! Leases: few ids, so that they are taken, free and given again.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;

use super::Generator;
use crate::operation::Operation;

const IDS: i64 = 8;
/// Far enough apart, and long enough, that neither an end nor an order depends on how fast the test is.
const SECONDS: [i64; 4] = [20_000, 100_000, 5_000_000, 9_000_000_000];

impl Generator {
    /// The id of a lease that may exist.
    pub(super) fn lease_id(&mut self) -> i64 {
        match self.dice.u32(..40) {
            0 => i64::MAX,
            1 => 77,
            2 => -1,
            _ => self.dice.i64(1..=IDS),
        }
    }

    pub(super) fn grant(&mut self) -> pb::LeaseGrantRequest {
        let ttl = if self.chance(30) { 9_000_000_001 } else { self.pick(&SECONDS) };
        let id = match self.dice.u32(..40) {
            0 => i64::MAX,
            1 => -1,
            _ => self.dice.i64(1..=IDS),
        };
        pb::LeaseGrantRequest { ttl, id }
    }

    /// Any id, and lives that are raised to the least.
    pub(super) fn grant_and_revoke(&mut self) -> Operation {
        let ttl = self.pick(&[-1, 0, 1, 2, 3, 60]);
        Operation::GrantAndRevoke(pb::LeaseGrantRequest { ttl, id: self.pick(&[0, 0, 1000]) })
    }

    pub(super) fn revoke(&mut self) -> pb::LeaseRevokeRequest {
        pb::LeaseRevokeRequest { id: if self.chance(50) { 0 } else { self.lease_id() } }
    }

    pub(super) fn time_to_live(&mut self) -> pb::LeaseTimeToLiveRequest {
        pb::LeaseTimeToLiveRequest { id: self.lease_id(), keys: self.chance(700) }
    }

    pub(super) fn keep_alive(&mut self) -> Operation {
        let count = self.dice.usize(1..4);
        Operation::KeepAlive((0..count).map(|_| self.lease_id()).collect())
    }
}

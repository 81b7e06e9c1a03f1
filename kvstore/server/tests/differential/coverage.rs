//! Which options were drawn and which answers seen, with their counts: what was never drawn was never compared.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use pb::watch_create_request::FilterType;

use crate::answer::Answer;
use crate::operation::{Operation, Revisions, Users};

/// Texts of refusals that have to be seen.
const REFUSALS: [&str; 12] = [
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: request is too large",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: too large lease TTL",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
];

/// What the Auth service can be asked, as [`Users`] names it.
const KINDS_OF_USERS: &[&str] = &[
    "Enable",
    "Disable",
    "Status",
    "Authenticate",
    "Add",
    "Get",
    "List",
    "Delete",
    "ChangePassword",
    "GrantRole",
    "RevokeRole",
    "AddRole",
    "GetRole",
    "ListRoles",
    "DeleteRole",
    "GrantPermission",
    "RevokePermission",
];
/// Texts of refusals that have to be seen where there are users.
const REFUSALS_OF_USERS: [&str; 14] = [
    "etcdserver: user name is empty",
    "etcdserver: invalid auth token",
    "etcdserver: permission denied",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth management",
    "etcdserver: user name already exists",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: root user does not exist",
];

/// Counts by option. One that was looked for and never found has a count of 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    fn option(&mut self, name: &str, drawn: bool) {
        if let Some(count) = self.0.get_mut(name) {
            *count += u64::from(drawn);
        } else {
            self.0.insert(name.to_owned(), u64::from(drawn));
        }
    }

    /// Counts one of several options of a kind.
    fn choice<T: fmt::Debug + PartialEq>(&mut self, kind: &str, all: &[T], drawn: &T) {
        for one in all {
            self.option(&format!("{kind} {one:?}"), one == drawn);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    /// Options that never came up.
    pub(crate) fn missing(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, count)| **count == 0).map(|(name, _)| &name[..]).collect()
    }

    /// Counts what an operation with real revisions asks for.
    pub(crate) fn note(&mut self, operation: &Operation, revisions: Revisions) {
        match operation {
            Operation::Range(request) => self.range("range", request, revisions),
            Operation::Put(request) => self.put("put", request),
            Operation::DeleteRange(request) => self.delete_range("delete", request),
            Operation::Txn(request) => self.txn(request, revisions, 1),
            Operation::Compact(request) => {
                self.option("compact physical", request.physical);
                self.revision("compact", request.revision, revisions);
            }
            Operation::Grant(_) => self.option("lease grant", true),
            Operation::GrantAndRevoke(request) => {
                self.option("lease grant any id", request.id == 0);
                self.option("lease grant raised to the least", request.ttl < 2);
            }
            Operation::Revoke(_) => self.option("lease revoke", true),
            Operation::TimeToLive(request) => self.option("lease time to live keys", request.keys),
            Operation::Leases => self.option("lease leases", true),
            Operation::KeepAlive(ids) => self.option("lease keep alive, several", ids.len() > 1),
            Operation::Watch { request, .. } => self.watch(request, revisions),
            Operation::CancelWatch { .. } => self.option("watch cancel", true),
            Operation::RequestProgress { .. } => self.option("watch progress request", true),
            Operation::CloseStream { .. } => self.option("watch close stream", true),
            Operation::Sync => self.option("sync", true),
            Operation::HashKv(request) => self.revision("hash", request.revision, revisions),
            Operation::Users(users) => self.users(users),
            Operation::As { user, operation } => {
                self.option("users: request of root", user == "root");
                self.option("users: request of another", user != "root");
                self.note(operation, revisions);
            }
            Operation::Alarms => self.option("alarms", true),
        }
    }

    /// Counts what was answered.
    pub(crate) fn note_answer(&mut self, answer: &Answer, has_users: bool) {
        let text = answer.as_ref().err().map_or("", |refusal| &refusal.text);
        let refusals = if has_users { &REFUSALS_OF_USERS[..] } else { &REFUSALS };
        for refusal in refusals {
            self.option(&format!("refused: {refusal}"), *refusal == text);
        }
    }

    /// Counts something that was seen of watches.
    pub(crate) fn note_seen(&mut self, name: &str, count: u64) {
        *self.0.entry(format!("seen: {name}")).or_default() += count;
    }

    fn revision(&mut self, of: &str, revision: i64, revisions: Revisions) {
        let Revisions { now, compacted } = revisions;
        self.option(&format!("{of} at no revision"), revision <= 0);
        self.option(&format!("{of} at a past revision"), revision > compacted && revision < now);
        self.option(&format!("{of} at the current revision"), revision == now);
        self.option(&format!("{of} at the compacted revision"), revision > 0 && revision == compacted);
        self.option(&format!("{of} below the compacted revision"), revision > 0 && revision < compacted);
        self.option(&format!("{of} in the future"), revision > now);
    }

    fn keys(&mut self, of: &str, key: &Bytes, end: &Bytes) {
        self.option(&format!("{of} one key"), end.is_empty());
        self.option(&format!("{of} from a key on"), &end[..] == b"\0" && key.len() > 1);
        self.option(&format!("{of} everything"), &end[..] == b"\0" && &key[..] == b"\0");
        self.option(&format!("{of} a range"), end > key);
        self.option(&format!("{of} an empty range"), end.len() > 1 && end <= key);
        self.option(&format!("{of} no key"), key.is_empty());
    }

    fn range(&mut self, of: &str, request: &pb::RangeRequest, revisions: Revisions) {
        self.keys(of, &request.key, &request.range_end);
        self.revision(of, request.revision, revisions);
        self.option(&format!("{of} limit"), request.limit > 0);
        self.option(&format!("{of} serializable"), request.serializable);
        self.option(&format!("{of} keys only"), request.keys_only);
        self.option(&format!("{of} count only"), request.count_only);
        self.option(&format!("{of} min mod revision"), request.min_mod_revision > 0);
        self.option(&format!("{of} max mod revision"), request.max_mod_revision > 0);
        self.option(&format!("{of} min create revision"), request.min_create_revision > 0);
        self.option(&format!("{of} max create revision"), request.max_create_revision > 0);
        let targets =
            [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
        let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
        let all: Vec<_> = targets.iter().flat_map(|target| orders.map(|order| (*target, order))).collect();
        self.choice(&format!("{of} by"), &all, &(request.sort_target(), request.sort_order()));
    }

    fn put(&mut self, of: &str, request: &pb::PutRequest) {
        self.option(&format!("{of} no key"), request.key.is_empty());
        self.option(&format!("{of} empty value"), request.value.is_empty());
        self.option(&format!("{of} lease"), request.lease != 0);
        self.option(&format!("{of} prev kv"), request.prev_kv);
        self.option(&format!("{of} ignore value"), request.ignore_value);
        self.option(&format!("{of} ignore lease"), request.ignore_lease);
    }

    fn delete_range(&mut self, of: &str, request: &pb::DeleteRangeRequest) {
        self.keys(of, &request.key, &request.range_end);
        self.option(&format!("{of} prev kv"), request.prev_kv);
    }

    fn txn(&mut self, request: &pb::TxnRequest, revisions: Revisions, depth: usize) {
        for level in 1..=3 {
            self.option(&format!("txn at depth {level}"), level == depth);
        }
        for compare in &request.compare {
            self.compare(compare);
        }
        for op in request.success.iter().chain(&request.failure) {
            self.option("txn empty operation", op.request.is_none());
            match &op.request {
                Some(Request::RequestRange(request)) => self.range("txn range", request, revisions),
                Some(Request::RequestPut(request)) => self.put("txn put", request),
                Some(Request::RequestDeleteRange(request)) => self.delete_range("txn delete", request),
                Some(Request::RequestTxn(request)) => self.txn(request, revisions, depth + 1),
                None => {}
            }
        }
    }

    fn compare(&mut self, compare: &pb::Compare) {
        use pb::compare::{CompareResult, CompareTarget};
        self.keys("compare", &compare.key, &compare.range_end);
        self.option("compare with nothing", compare.target_union.is_none());
        let targets = [
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ];
        let results =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        let all: Vec<_> = targets.iter().flat_map(|target| results.map(|result| (*target, result))).collect();
        self.choice("compare", &all, &(compare.target(), compare.result()));
    }

    fn users(&mut self, users: &Users) {
        let text = format!("{users:?}");
        let name = text.split('(').next().unwrap_or_default();
        for kind in KINDS_OF_USERS {
            self.option(&format!("users: {kind}"), *kind == name);
        }
    }

    fn watch(&mut self, request: &pb::WatchCreateRequest, revisions: Revisions) {
        self.keys("watch", &request.key, &request.range_end);
        self.revision("watch", request.start_revision, revisions);
        self.option("watch before the beginning", request.start_revision < 0);
        let has = |filter: FilterType| request.filters.contains(&filter.into());
        self.option("watch without puts", has(FilterType::Noput));
        self.option("watch without deletions", has(FilterType::Nodelete));
        self.option("watch without anything", has(FilterType::Noput) && has(FilterType::Nodelete));
        self.option("watch prev kv", request.prev_kv);
        self.option("watch fragment", request.fragment);
        self.option("watch progress notify", request.progress_notify);
        self.option("watch own id", request.watch_id != 0);
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, count)| writeln!(f, "{count:>9} {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_never_drawn_is_missing() {
        let mut coverage = Coverage::default();
        let revisions = Revisions { now: 1, compacted: 0 };
        let put = |prev_kv| Operation::Put(pb::PutRequest { prev_kv, ..Default::default() });
        coverage.note(&put(false), revisions);
        assert!(coverage.missing().contains(&"put prev kv"));
        coverage.note(&put(true), revisions);
        assert!(!coverage.missing().contains(&"put prev kv"));
    }
}

//! What may differ between the two stores. Everything else is a defect of ours.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use landbridge_kvstore_server::grpc::proto::{etcdserverpb as pb, mvccpb};
use pb::range_request::SortTarget;

use crate::answer::{Reply, Told};
use crate::operation::Operation;

/// Each allowed difference with its reason.
pub(crate) const ALLOWED_DIFFERENCES: &[(Allowed, &str)] = &[
    (Allowed::Ids, "cluster and member ids come from names, URLs and chance; looked at: they are not 0"),
    (Allowed::Term, "the term counts elections, and libraries hold a different number of them at the start"),
    (Allowed::Token, "a token is chance; looked at: there is one, and what it opens"),
    (Allowed::LeaseId, "the id of a lease that asks for none is chance; looked at: it is positive"),
    (
        Allowed::RemainingTime,
        "what a lease has left depends on the moment; looked at: it is at most what was granted",
    ),
    (
        Allowed::RunOut,
        "on a slow machine a lease of a few seconds may run out before it is revoked; looked at: it had all its time",
    ),
    (Allowed::LeaseKeysOrder, "etcd lists the keys of a lease in the order of a Go map, which is chance"),
    (
        Allowed::Ties,
        "etcd's sort is not stable above 12 keys; looked at: each place has a key of the same rank",
    ),
    (
        Allowed::Batching,
        "how many revisions a message to a watch has depends on when it reads; looked at: all of one \
     revision come in one message, or in fragments that say so, and the header is not ahead of what was told",
    ),
    (
        Allowed::Progress,
        "how often a watch is told how far it is depends on the moment; looked at: it has been told \
     everything up to there",
    ),
    (
        Allowed::HashRevision,
        "the revision of a checksum is told since etcd 3.6; looked at: it is the one asked for, or the current one",
    ),
    (
        Allowed::HashOfCompacted,
        "of a revision that was compacted to, etcd keeps the checksum from before that until it is started again; ours is \
         what is there: not asked",
    ),
    (
        Allowed::SilentProgress,
        "etcd does not answer a question for progress on a stream without watches, with one that starts in the future, or \
         that a compaction ended",
    ),
    (
        Allowed::EarlyProgress,
        "etcd 3.5 tells a watch that starts in the future how far it is, ours only from its start on",
    ),
    (
        Allowed::EndedByCompaction,
        "etcd keeps the id of a watch that a compaction ended until its stream ends: not given again, not cancelled again",
    ),
    (
        Allowed::BeforeTheBeginning,
        "a watch from before revision 0 is refused by later versions of etcd, as by ours; 3.5.16 makes it, and then ends it if \
         anything was ever compacted; looked at: what ours says",
    ),
    (
        Allowed::TextOfMaintenance,
        "where users are asked for maintenance, etcd 3.5 forgets the code of the refusal and the beginning of its text; \
         looked at: it is the same refusal",
    ),
];

/// What is not asked, with the reason: after these answers the stores have different states, or etcd has ended.
pub(crate) const NOT_DRAWN: &[&str] = &[
    "a transaction with puts and a deletion from a key on, or of a backward range: etcd takes the end for a key when it looks \
     for keys that are changed twice, and so lets a key be put and deleted at one revision, against its own description",
    "two transactions side by side in one, the first with a put and the second with a deletion of the same key: etcd sees \
     it the other way round only, and here too lets a key be put and deleted at one revision",
    "a compaction to 0: etcd accepts it once, and from then on answers a question for the checksum of the current \
     revision with that of nothing",
    "by whoever is not root: a compaction, a checksum, the alarms, what leases have left, a transaction in another; by whoever \
     has no name: a lease, or a transaction of nothing. etcd does that for everyone until 3.5.28, ours for those who may (see `tests/api/auth/mine.rs`)",
    "permissions of one role that begin with the same key: which of them etcd changes depends on a sort that is not stable",
    "by whoever is not root: a put with the previous value in a transaction, which etcd tells to those who may not read it",
    "by whoever is not root: a range that ends before it begins, which holds nothing: whether etcd lets it pass depends on the \
     shape of its tree of permissions",
    "an unknown sort order or target: etcd 3.5 ends (ours refuses, see `tests/api/ours.rs`)",
];

/// A difference that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Allowed {
    Ids,
    Term,
    Token,
    LeaseId,
    RemainingTime,
    RunOut,
    LeaseKeysOrder,
    Ties,
    Batching,
    Progress,
    HashRevision,
    HashOfCompacted,
    SilentProgress,
    EarlyProgress,
    EndedByCompaction,
    BeforeTheBeginning,
    TextOfMaintenance,
}

/// How often each difference was seen and allowed.
pub(crate) type Differences = BTreeMap<Allowed, u64>;

/// Makes equal what may differ. What is left has to be equal.
///
/// # Errors
/// What is wrong with one of them by itself.
pub(crate) fn even_out(
    operation: &Operation,
    ours: &mut Reply,
    etcd: &mut Reply,
    seen: &mut Differences,
) -> Result<(), String> {
    let mut allow = |difference| *seen.entry(difference).or_default() += 1;
    for (name, reply) in [("ours", &mut *ours), ("etcd", &mut *etcd)] {
        for header in reply.headers() {
            let Some(header) = header else { continue };
            if header.cluster_id == 0 || header.member_id == 0 || header.raft_term == 0 {
                return Err(format!("{name} has an empty id or term: {header:?}"));
            }
            *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
        }
    }
    allow(Allowed::Ids);
    allow(Allowed::Term);
    match (operation.asked(), ours, etcd) {
        (Operation::Range(request), Reply::Range(ours), Reply::Range(etcd)) => {
            even_out_ties(request, ours, etcd, &mut allow);
        }
        (Operation::Txn(request), Reply::Txn(ours), Reply::Txn(etcd)) => {
            even_out_txn(request, ours, etcd, &mut allow);
        }
        (
            Operation::GrantAndRevoke(request),
            Reply::GrantAndRevoke(ours, revoked),
            Reply::GrantAndRevoke(etcd, also_revoked),
        ) => {
            for granted in [&mut *ours, &mut *etcd].into_iter().filter(|_| request.id == 0) {
                if granted.id <= 0 {
                    return Err(format!("the id of a lease is not positive: {granted:?}"));
                }
                granted.id = 0;
                allow(Allowed::LeaseId);
            }
            if revoked.is_some() != also_revoked.is_some() {
                (*revoked, *also_revoked) = (None, None);
                allow(Allowed::RunOut);
            }
        }
        (_, Reply::Users(_, Told::Token(ours)), Reply::Users(_, Told::Token(etcd))) => {
            if ours.is_empty() || etcd.is_empty() {
                return Err(format!("a token is empty: ours {ours:?}, etcd {etcd:?}"));
            }
            ours.clone_from(etcd);
            allow(Allowed::Token);
        }
        (Operation::HashKv(request), Reply::HashKv(ours), Reply::HashKv(etcd)) => {
            let current = ours.header.as_ref().map_or(0, |header| header.revision);
            let of = if request.revision == 0 { current } else { request.revision };
            if etcd.hash_revision == 0 && ours.hash_revision == of {
                ours.hash_revision = 0;
                allow(Allowed::HashRevision);
            }
        }
        (_, ours @ Reply::TimeToLive(_), etcd @ Reply::TimeToLive(_)) => {
            for reply in [ours, etcd] {
                let Reply::TimeToLive(reply) = reply else { continue };
                if reply.ttl > reply.granted_ttl {
                    return Err(format!("a lease has more time than it was granted: {reply:?}"));
                }
                if reply.ttl > 0 {
                    reply.ttl = 1;
                    allow(Allowed::RemainingTime);
                }
                if !reply.keys.is_sorted() {
                    reply.keys.sort();
                    allow(Allowed::LeaseKeysOrder);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn even_out_txn(
    request: &pb::TxnRequest,
    ours: &mut pb::TxnResponse,
    etcd: &mut pb::TxnResponse,
    allow: &mut impl FnMut(Allowed),
) {
    use pb::request_op::Request;
    use pb::response_op::Response;
    let branch = if etcd.succeeded { &request.success } else { &request.failure };
    let replies = ours.responses.iter_mut().zip(&mut etcd.responses);
    for (op, (ours, etcd)) in branch.iter().zip(replies) {
        match (&op.request, &mut ours.response, &mut etcd.response) {
            (
                Some(Request::RequestRange(request)),
                Some(Response::ResponseRange(ours)),
                Some(Response::ResponseRange(etcd)),
            ) => even_out_ties(request, ours, etcd, allow),
            (
                Some(Request::RequestTxn(request)),
                Some(Response::ResponseTxn(ours)),
                Some(Response::ResponseTxn(etcd)),
            ) => even_out_txn(request, ours, etcd, allow),
            _ => {}
        }
    }
}

/// Up to this many, Go's sort is one by insertion, which is stable.
const STABLE: i64 = 12;

fn even_out_ties(
    request: &pb::RangeRequest,
    ours: &mut pb::RangeResponse,
    etcd: &pb::RangeResponse,
    allow: &mut impl FnMut(Allowed),
) {
    let target = request.sort_target();
    if etcd.count <= STABLE || target == SortTarget::Key || ours.kvs == etcd.kvs {
        return;
    }
    let tie = |a: &mvccpb::KeyValue, b: &mvccpb::KeyValue| rank(target, a, b).is_eq();
    let alike = ours.kvs.len() == etcd.kvs.len() && ours.kvs.iter().zip(&etcd.kvs).all(|(a, b)| tie(a, b));
    // Only which of the last rank are behind the limit is open.
    let ranks = etcd.kvs.chunk_by(tie).zip(ours.kvs.chunk_by(tie));
    let complete = etcd.kvs.chunk_by(tie).count() - usize::from(etcd.more);
    let same = |etcd: &[mvccpb::KeyValue], ours: &[mvccpb::KeyValue]| etcd.iter().all(|kv| ours.contains(kv));
    if alike && ranks.take(complete).all(|(etcd, ours)| same(etcd, ours)) {
        ours.kvs.clone_from(&etcd.kvs);
        allow(Allowed::Ties);
    }
}

fn rank(target: SortTarget, a: &mvccpb::KeyValue, b: &mvccpb::KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key().cmp(b.key()),
        SortTarget::Version => a.version().cmp(&b.version()),
        SortTarget::Create => a.create_revision().cmp(&b.create_revision()),
        SortTarget::Mod => a.mod_revision().cmp(&b.mod_revision()),
        SortTarget::Value => a.value().cmp(b.value()),
    }
}

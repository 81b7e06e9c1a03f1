//! Who may read and write which keys.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::request_op::Request;

use super::{Transcript, User, compare, keys, put, range};

#[tokio::test]
async fn keys_are_read_and_written_by_those_who_may_in_etcd() {
    compare(include_str!("keys.txt"), async |nobody| {
        let mut lines = Transcript::default();
        let root = nobody.rule().await;
        for key in ["a", "b", "b1", "c", "d", "w"] {
            root.put(key).await.unwrap();
        }
        root.make("ann", &[(0, "b", "c"), (0, "c", ""), (1, "w", "x"), (2, "y", "\0")]).await;
        let ann = nobody.log_in("ann", "secret").await;
        lines.0.push_str("-- nobody\n");
        ranges(&mut lines, &nobody).await;
        lines.0.push_str("-- ann\n");
        ranges(&mut lines, &ann).await;
        writes(&mut lines, &ann).await;
        txns(&mut lines, &ann).await;
        changes(&mut lines, &root, &ann).await;
        lines
    })
    .await;
}

async fn ranges(lines: &mut Transcript, user: &User) {
    for (key, end) in [
        ("b", ""),
        ("b", "c"),
        ("b", "c\0"),
        ("b", "d"),
        ("b1", "c"),
        ("b", "\0"),
        ("a", ""),
        ("a", "c"),
        ("c", "\0"),
        ("c", "c\0"),
        ("y", "\0"),
        ("yy", "z"),
        ("z", "\0"),
        ("\0", "\0"),
        ("", ""),
        ("w", ""),
        ("n", ""),
    ] {
        lines.note(&format!("get {key:?} {end:?}"), user.get(key, end).await, keys);
        let local = pb::RangeRequest { serializable: true, count_only: true, ..range(key, end) };
        lines.note("  and locally", user.kv().range(user.ask(local)).await, |found| found.count);
    }
}

async fn writes(lines: &mut Transcript, user: &User) {
    for key in ["a", "b", "w", "wx", "x", "y", "yz", "z"] {
        lines.done(&format!("put {key:?}"), user.put(key).await);
        let previous = pb::PutRequest { prev_kv: true, ..put(key) };
        lines.done("  and what was there", user.kv().put(user.ask(previous)).await);
    }
    for (key, end) in [("w", "x"), ("w", "\0"), ("b", ""), ("y", "\0"), ("w", "x\0")] {
        let delete = |prev_kv| pb::DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv };
        let answer = user.kv().delete_range(user.ask(delete(true))).await;
        lines.note(&format!("delete {key:?} {end:?} and tell"), answer, |deleted| deleted.deleted);
        let answer = user.kv().delete_range(user.ask(delete(false))).await;
        lines.note(&format!("delete {key:?} {end:?}"), answer, |deleted| deleted.deleted);
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

async fn txns(lines: &mut Transcript, user: &User) {
    let delete = |key: &'static str, prev_kv| pb::DeleteRangeRequest {
        key: key.into(),
        prev_kv,
        ..Default::default()
    };
    let ops = [
        ("get b", op(Request::RequestRange(range("b", "")))),
        ("get a", op(Request::RequestRange(range("a", "")))),
        ("get b on", op(Request::RequestRange(range("b", "\0")))),
        ("put w", op(Request::RequestPut(put("w")))),
        ("put b", op(Request::RequestPut(put("b")))),
        ("delete w", op(Request::RequestDeleteRange(delete("w", false)))),
        ("delete w and tell", op(Request::RequestDeleteRange(delete("w", true)))),
        ("delete b", op(Request::RequestDeleteRange(delete("b", false)))),
    ];
    let compare = |key: &'static str, end: &'static str| pb::Compare {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    for (name, op) in &ops {
        let taken = pb::TxnRequest { success: vec![op.clone()], ..Default::default() };
        let left = pb::TxnRequest { failure: vec![op.clone()], ..Default::default() };
        lines.note(&format!("then {name}"), user.kv().txn(user.ask(taken)).await, |txn| txn.succeeded);
        lines.note(&format!("else {name}"), user.kv().txn(user.ask(left)).await, |txn| txn.succeeded);
    }
    for (key, end) in [("b", ""), ("a", ""), ("b", "c\0"), ("b", "\0"), ("w", "")] {
        for success in [vec![], vec![ops[3].1.clone()]] {
            let txn = pb::TxnRequest { compare: vec![compare(key, end)], success, ..Default::default() };
            let answer = user.kv().txn(user.ask(txn)).await;
            lines.note(&format!("if {key:?} {end:?}"), answer, |txn| txn.succeeded);
        }
    }
}

/// A change of roles counts from the next request on, with the token of before.
async fn changes(lines: &mut Transcript, root: &User, ann: &User) {
    lines.0.push_str("-- ann, as root changes it\n");
    root.role_add("more").await.unwrap();
    root.grant("more", 0, "a", "").await.unwrap();
    lines.note("get a", ann.get("a", "").await, keys);
    root.grant_role("ann", "more").await.unwrap();
    lines.note("get a", ann.get("a", "").await, keys);
    lines.note("get a to c", ann.get("a", "c").await, keys);
    root.grant("more", 0, "a\0", "b").await.unwrap();
    lines.note("get a to c", ann.get("a", "c").await, keys);
    root.auth().role_delete(root.ask(pb::AuthRoleDeleteRequest { role: "more".into() })).await.unwrap();
    lines.note("get a", ann.get("a", "").await, keys);
    root.auth().user_delete(root.ask(pb::AuthUserDeleteRequest { name: "ann".into() })).await.unwrap();
    lines.note("get b", ann.get("b", "").await, keys);
    root.auth().auth_disable(root.ask(pb::AuthDisableRequest {})).await.unwrap();
    lines.note("get a", ann.get("a", "").await, keys);
}

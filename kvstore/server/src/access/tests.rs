use landbridge_kvstore_store::{DeleteRequest, Op, PutRequest, RangeRequest, TxnRequest};

use super::*;

fn range(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange::new(key.into(), end.into())
}

fn grant(user: &str, read: &[KeyRange], write: &[KeyRange]) -> Grant {
    Grant { user: user.into(), root: false, read: read.to_vec(), write: write.to_vec() }
}

fn reader_of(ranges: &[KeyRange]) -> Permissions {
    AccessRules::ByUser(vec![grant("u", ranges, &[])]).of(Some("u")).unwrap()
}

#[test]
fn only_users_with_a_grant_get_in() {
    let root = Grant { user: "root".into(), root: true, read: Vec::new(), write: Vec::new() };
    let rules = AccessRules::ByUser(vec![root, grant("u", &[], &[])]);
    assert_eq!(rules.of(None), Err(AccessError::Anonymous));
    assert_eq!(rules.of(Some("")), Err(AccessError::Anonymous));
    assert_eq!(rules.of(Some("roo")), Err(AccessError::Denied));
    assert_eq!(rules.of(Some("root")), Ok(Permissions::all()));
    rules.of(Some("u")).unwrap().root().unwrap_err();
    assert_eq!(AccessRules::Open.of(None), Ok(Permissions::all()));
}

#[test]
fn a_right_on_one_key_does_not_open_what_is_behind_it() {
    let user = reader_of(&[range("k", "")]);
    user.read(&range("k", "")).unwrap();
    for refused in [range("k", "\0"), range("k", "l"), range("k", "k\0\0"), range("j", ""), range("\0", "\0")]
    {
        user.read(&refused).unwrap_err();
    }
    // The same set of keys in another form.
    user.read(&range("k", "k\0")).unwrap();
    user.write(&range("k", "")).unwrap_err();
}

#[test]
fn a_prefix_does_not_hold_its_own_bare_neighbours() {
    let user = reader_of(&[KeyRange::prefix(b"a/")]);
    user.read(&KeyRange::prefix(b"a/b")).unwrap();
    user.read(&KeyRange::prefix(b"a/")).unwrap();
    user.read(&KeyRange::prefix(b"a")).unwrap_err();
    user.read(&range("a/", "\0")).unwrap_err();
    user.read(&KeyRange::prefix(b"")).unwrap_err();
}

#[test]
fn a_range_that_holds_nothing_needs_its_first_key() {
    let user = reader_of(&[range("b", "c")]);
    user.read(&range("b", "a")).unwrap();
    user.read(&range("x", "a")).unwrap_err();
}

#[test]
fn a_transaction_needs_the_rights_of_everything_in_it() {
    let rules = AccessRules::ByUser(vec![grant("u", &[range("r", "s")], &[range("w", "x")])]);
    let user = rules.of(Some("u")).unwrap();
    let put = |key: &'static str, prev_kv| {
        Op::Put(PutRequest { key: key.into(), prev_kv, ..PutRequest::default() })
    };
    let delete = |prev_kv| Op::Delete(DeleteRequest { range: range("w", "x"), prev_kv });
    let nested = |op| Op::Txn(TxnRequest { failure: vec![op], ..TxnRequest::default() });
    let txn = |op| TxnRequest { failure: vec![op], ..TxnRequest::default() };

    user.txn(&txn(nested(put("w", false)))).unwrap();
    user.txn(&txn(nested(Op::Range(RangeRequest::new(range("r", "s")))))).unwrap();
    for refused in
        [put("r", false), put("w", true), delete(true), Op::Range(RangeRequest::new(range("w", "")))]
    {
        user.txn(&txn(refused.clone())).unwrap_err();
        user.txn(&txn(nested(refused))).unwrap_err();
    }
    user.txn(&txn(delete(false))).unwrap();
}

use landbridge_kvstore_store::{DeleteRequest, RangeRequest};
use proptest::prelude::*;

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
    assert_eq!(rules.of(Some("root")), Ok(Permissions::All));
    rules.of(Some("u")).unwrap().root().unwrap_err();
    assert_eq!(AccessRules::Open.of(None), Ok(Permissions::All));
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

fn any_range() -> impl Strategy<Value = KeyRange> {
    let key = || prop::collection::vec(0u8..4, 1..3).prop_map(Bytes::from);
    let end = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key()];
    (key(), end).prop_map(|(key, end)| KeyRange::new(key, end))
}

/// Every key that tells two sets apart which are made of the ranges above.
fn telling_keys() -> Vec<Bytes> {
    let digits = 0u8..5;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for one in digits.clone() {
        keys.push(vec![one]);
        for two in digits.clone() {
            keys.push(vec![one, two]);
            keys.extend([vec![one, two, 0], vec![one, two, 9]]);
        }
    }
    keys.into_iter().map(Bytes::from).collect()
}

proptest! {
    /// A range is covered exactly if each key that it can hold is in one of the granted ranges.
    #[test]
    fn a_cover_holds_a_range_if_it_holds_each_of_its_keys(
        granted in prop::collection::vec(any_range(), 0..5),
        wanted in any_range(),
    ) {
        let cover: Cover = granted.iter().collect();
        let holds = |key: &[u8]| granted.iter().any(|range| range.contains(key));
        let keys = telling_keys();
        let expected = if wanted.is_empty() {
            let (KeyRange::Single(first) | KeyRange::Between(first, _) | KeyRange::From(first)) = &wanted;
            holds(first)
        } else {
            keys.iter().filter(|key| wanted.contains(key)).all(|key| holds(key))
        };
        prop_assert_eq!(cover.holds(&wanted), expected);
        for key in &keys {
            prop_assert_eq!(cover.contains(key), holds(key));
        }
    }

    /// However grants are cut into pieces, they are worth the same.
    #[test]
    fn a_cut_grant_is_worth_as_much_as_a_whole_one(
        mut cuts in prop::collection::btree_set(prop::collection::vec(0u8..4, 1..4), 2..6),
    ) {
        let first = cuts.pop_first().unwrap();
        let last = cuts.last().unwrap().clone();
        let mut from = Bytes::from(first.clone());
        let mut pieces = Vec::new();
        for cut in cuts {
            let cut = Bytes::from(cut);
            pieces.push(KeyRange::Between(from, cut.clone()));
            from = cut;
        }
        pieces.reverse();
        let whole = KeyRange::Between(first.into(), last.into());
        prop_assert!(pieces.iter().collect::<Cover>().holds(&whole));
        let with_gap: Cover = pieces.iter().skip(1).collect();
        prop_assert!(!with_gap.holds(&whole));
    }
}

//! Users, roles, and what they may do: etcd's rules (`server/auth/store.go` of 3.5) and its oddities.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bytes::Bytes;
use landbridge_kvstore_store::auth::{
    AuthChange, AuthCommand, AuthError, AuthOutcome, AuthStore, Cover, Permission, PermissionKind,
};
use landbridge_kvstore_store::{KeyRange, LeaseId, PutRequest, Store};
use proptest::prelude::*;

/// Users and roles, as one who may do everything changes them.
#[derive(Default)]
struct Users(Arc<AuthStore>);

impl Users {
    fn by(&mut self, by: &str, change: AuthChange) -> Result<AuthOutcome, AuthError> {
        AuthStore::apply(&mut self.0, &AuthCommand { by: by.into(), change }, 9)
    }

    fn root(&mut self, change: AuthChange) -> Result<AuthOutcome, AuthError> {
        self.by("root", change)
    }

    /// User and role `root`, and rights turned on.
    fn enabled() -> Self {
        let mut users = Self::default();
        users.root(user_add("root")).unwrap();
        users.root(grant_role("root", "root")).unwrap();
        users.root(AuthChange::Enable).unwrap();
        users
    }

    fn user(&mut self, name: &str, permissions: &[Permission]) {
        self.root(user_add(name)).unwrap();
        self.root(AuthChange::RoleAdd { name: name.into() }).unwrap();
        for permission in permissions {
            self.root(grant_permission(name, permission.clone())).unwrap();
        }
        self.root(grant_role(name, name)).unwrap();
    }
}

fn user_add(name: &str) -> AuthChange {
    AuthChange::UserAdd { name: name.into(), password_hash: "hash".into(), no_password: false }
}

fn grant_role(user: &str, role: &str) -> AuthChange {
    AuthChange::UserGrantRole { user: user.into(), role: role.into() }
}

fn grant_permission(role: &str, permission: Permission) -> AuthChange {
    AuthChange::RoleGrantPermission { role: role.into(), permission: Some(permission) }
}

fn permission(kind: PermissionKind, key: &'static str, range_end: &'static str) -> Permission {
    Permission { kind, key: key.into(), range_end: range_end.into() }
}

fn read(key: &'static str, range_end: &'static str) -> Permission {
    permission(PermissionKind::Read, key, range_end)
}

/// `AuthEnable`
#[test]
fn rights_are_turned_on_by_root_alone_and_that_is_no_revision() {
    let mut users = Users::default();
    assert_eq!((users.0.revision(), users.0.version()), (1, AuthStore::OFF));
    assert_eq!(users.root(AuthChange::Enable), Err(AuthError::RootUserMissing));
    users.root(user_add("root")).unwrap();
    assert_eq!(users.root(AuthChange::Enable), Err(AuthError::RootRoleMissing));
    users.root(grant_role("root", "root")).unwrap();
    assert_eq!(users.0.revision(), 3);
    users.root(AuthChange::Enable).unwrap();
    assert_eq!((users.0.revision(), users.0.version(), users.0.is_enabled()), (3, 3, true));
    users.root(AuthChange::Enable).unwrap();
    assert_eq!(users.root(AuthChange::Disable), Ok(AuthOutcome::Disabled));
    assert_eq!((users.0.revision(), users.0.version()), (4, AuthStore::OFF));
    assert_eq!(users.root(AuthChange::Disable), Ok(AuthOutcome::Done));
    assert_eq!(users.0.revision(), 4);
}

/// `IsAdminPermitted`
#[test]
fn nobody_else_changes_users() {
    let mut users = Users::enabled();
    users.user("ann", &[read("a", "")]);
    let revision = users.0.revision();
    assert_eq!(users.by("ann", user_add("eve")), Err(AuthError::PermissionDenied));
    assert_eq!(users.by("nobody", user_add("eve")), Err(AuthError::UserNotFound));
    assert_eq!(users.by("", user_add("eve")), Err(AuthError::UserEmpty));
    assert_eq!(users.by("ann", AuthChange::Disable), Err(AuthError::PermissionDenied));
    assert_eq!(users.0.revision(), revision);
    users.root(grant_role("ann", "root")).unwrap();
    users.by("ann", user_add("eve")).unwrap();
}

/// `UserDelete`, `UserRevokeRole`, `RoleDelete`
#[test]
fn what_root_is_made_of_stays_while_it_is_needed() {
    let mut users = Users::enabled();
    users.root(AuthChange::RoleAdd { name: "root".into() }).unwrap();
    let delete = || AuthChange::UserDelete { name: "root".into() };
    let revoke = || AuthChange::UserRevokeRole { user: "root".into(), role: "root".into() };
    let delete_role = || AuthChange::RoleDelete { name: "root".into() };
    for change in [delete(), revoke(), delete_role()] {
        assert_eq!(users.root(change), Err(AuthError::InvalidManagement));
    }
    users.root(AuthChange::Disable).unwrap();
    users.root(revoke()).unwrap();
    users.root(delete_role()).unwrap();
    users.root(delete()).unwrap();
}

/// `RoleDelete`
#[test]
fn a_role_that_goes_goes_from_its_users() {
    let mut users = Users::enabled();
    users.user("ann", &[read("a", "")]);
    assert!(users.0.granted("ann").unwrap().read.contains(b"a"));
    users.root(AuthChange::RoleDelete { name: "ann".into() }).unwrap();
    assert!(users.0.user("ann").unwrap().roles.is_empty());
    assert!(users.0.granted("ann").unwrap().read.is_empty());
    users.root(AuthChange::RoleAdd { name: "ann".into() }).unwrap();
    assert!(users.0.user("ann").unwrap().roles.is_empty(), "the next one of that name is another");
}

/// `UserGrantRole`, `UserRevokeRole`
#[test]
fn a_role_is_given_once_and_taken_if_it_was_given() {
    let mut users = Users::enabled();
    users.user("ann", &[]);
    let revision = users.0.revision();
    users.root(grant_role("ann", "ann")).unwrap();
    assert_eq!(users.0.revision(), revision, "it had it");
    assert_eq!(users.root(grant_role("ann", "none")), Err(AuthError::RoleNotFound));
    assert_eq!(users.root(grant_role("none", "none")), Err(AuthError::UserNotFound));
    let revoke = || AuthChange::UserRevokeRole { user: "ann".into(), role: "ann".into() };
    users.root(revoke()).unwrap();
    assert_eq!(users.root(revoke()), Err(AuthError::RoleNotGranted));
    assert_eq!(users.0.revision(), revision + 1);
}

/// `RoleGrantPermission`: etcd looks at the first permission of a key alone.
#[test]
fn a_permission_of_the_same_range_is_changed_if_it_is_the_first_of_its_key() {
    let mut users = Users::enabled();
    users.user("ann", &[read("b", ""), read("a", "c"), read("a", "b")]);
    let kinds = |users: &Users| -> Vec<_> {
        let role = users.0.role("ann").unwrap();
        role.permissions
            .iter()
            .map(|given| (given.key.clone(), given.range_end.clone(), given.kind))
            .collect()
    };
    use PermissionKind::{Read, ReadWrite, Write};
    users.root(grant_permission("ann", permission(Write, "a", "c"))).unwrap();
    users.root(grant_permission("ann", permission(ReadWrite, "a", "b"))).unwrap();
    let expected = [("a", "c", Write), ("a", "b", Read), ("a", "b", ReadWrite), ("b", "", Read)];
    let expected = expected.map(|(key, end, kind)| (Bytes::from(key), Bytes::from(end), kind));
    assert_eq!(kinds(&users), expected);
    let revoke =
        || AuthChange::RoleRevokePermission { role: "ann".into(), key: "a".into(), range_end: "b".into() };
    users.root(revoke()).unwrap();
    assert_eq!(users.root(revoke()), Err(AuthError::PermissionNotGranted));
    assert_eq!(kinds(&users), [expected[0].clone(), expected[3].clone()]);
}

/// `isValidPermissionRange`
#[test]
fn a_permission_is_about_some_key() {
    let mut users = Users::enabled();
    users.user("ann", &[]);
    for (key, end) in [("", ""), ("", "\0"), ("b", "a"), ("b", "b")] {
        let refused = users.root(grant_permission("ann", read(key, end)));
        assert_eq!(refused, Err(AuthError::InvalidManagement), "{key:?} {end:?}");
        // Before the role is looked for.
        let refused = users.root(grant_permission("none", read(key, end)));
        assert_eq!(refused, Err(AuthError::InvalidManagement));
    }
    let missing = AuthChange::RoleGrantPermission { role: "none".into(), permission: None };
    assert_eq!(users.root(missing), Err(AuthError::PermissionNotGiven));
    users.root(grant_permission("ann", read("b", "\0"))).unwrap();
}

/// GHSA-xg4h-6gfc-h4m8: a permission on one key gave all behind it to a range without end.
#[test]
fn one_key_is_not_all_behind_it() {
    let mut users = Users::enabled();
    users.user("ann", &[read("a", ""), permission(PermissionKind::Unknown(7), "b", "\0")]);
    let granted = users.0.granted("ann").unwrap();
    assert!(granted.read.holds(&KeyRange::new("a".into(), Bytes::new())));
    for end in ["\0", "b", "a\0\0"] {
        assert!(!granted.read.holds(&KeyRange::new("a".into(), end.into())), "{end:?}");
    }
    assert!(!granted.read.contains(b"b") && granted.write.is_empty(), "an unknown kind allows nothing");
}

/// `getMergedPerms`
#[test]
fn all_roles_of_a_user_add_up() {
    let mut users = Users::enabled();
    users.user("ann", &[read("a", "b"), permission(PermissionKind::ReadWrite, "x", "\0")]);
    users.user("bob", &[read("b", "c")]);
    users.root(grant_role("ann", "bob")).unwrap();
    let granted = users.0.granted("ann").unwrap();
    assert!(granted.read.holds(&KeyRange::new("a".into(), "c".into())));
    assert!(granted.write.holds(&KeyRange::new("xy".into(), "\0".into())));
    assert!(!granted.write.contains(b"a") && !granted.root);
    assert!(users.0.granted("root").unwrap().root);
    assert_eq!(users.0.granted("none"), None);
}

/// `Authenticate`
#[test]
fn a_token_is_given_to_users_with_a_password() {
    let mut users = Users::default();
    let ask = |user: &str| AuthChange::Authenticate { user: user.into(), secret: "abc".into() };
    assert_eq!(users.by("", ask("root")), Err(AuthError::NotEnabled));
    users = Users::enabled();
    let no_password =
        AuthChange::UserAdd { name: "cert".into(), password_hash: "hash".into(), no_password: true };
    users.root(no_password).unwrap();
    assert_eq!(users.0.user("cert").unwrap().password_hash, "");
    let revision = users.0.revision();
    for user in ["none", "cert", ""] {
        assert_eq!(users.by("", ask(user)), Err(AuthError::AuthenticationFailed), "{user}");
    }
    let token = AuthOutcome::Authenticated { user: "root".into(), token: "abc.9".into() };
    assert_eq!(users.by("", ask("root")), Ok(token));
    assert_eq!(users.0.revision(), revision);
}

/// `UserChangePassword`, `UserDelete`
#[test]
fn tokens_end_with_the_password_they_were_given_for() {
    let mut users = Users::enabled();
    users.user("ann", &[]);
    let change = |hash: Option<&'static str>| AuthChange::UserChangePassword {
        name: "ann".into(),
        password_hash: hash.map(Bytes::from),
    };
    let end = AuthOutcome::TokensEnd { user: "ann".into() };
    assert_eq!(users.root(change(Some("other"))), Ok(end.clone()));
    assert_eq!(users.0.user("ann").unwrap().password_hash, "other");
    assert!(users.0.user("ann").unwrap().roles.contains("ann"));
    assert_eq!(users.root(change(None)), Err(AuthError::NoPasswordUser));
    assert_eq!(users.root(AuthChange::UserDelete { name: "ann".into() }), Ok(end));
    assert_eq!(users.root(change(None)), Err(AuthError::UserNotFound));
}

#[test]
fn a_version_is_outdated_by_every_change_while_rights_count() {
    let mut users = Users::enabled();
    let version = users.0.version();
    assert!(!users.0.has_outdated(version) && !users.0.has_outdated(0));
    assert!(users.0.has_outdated(AuthStore::OFF), "rights did not count");
    users.root(user_add("ann")).unwrap();
    assert!(users.0.has_outdated(version));
    users.root(AuthChange::Disable).unwrap();
    assert!(!users.0.has_outdated(version));
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
        let cover: Cover = granted.iter().cloned().collect();
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
        prop_assert!(pieces.iter().cloned().collect::<Cover>().holds(&whole));
        let with_gap: Cover = pieces.iter().skip(1).cloned().collect();
        prop_assert!(!with_gap.holds(&whole));
    }

    /// Looking a lease through by seeking finds what looking at each key finds.
    #[test]
    fn a_cover_holds_a_lease_if_it_holds_each_of_its_keys(
        granted in prop::collection::vec(any_range(), 0..5),
        keys in prop::collection::vec(prop::sample::select(telling_keys()), 0..12),
    ) {
        let (mut store, lease) = (Store::new(), LeaseId::new(7).unwrap());
        store.grant_lease(lease, 60).unwrap();
        for key in keys.iter().cloned() {
            store.put(&PutRequest { key, lease: Some(lease), ..PutRequest::default() }).unwrap();
        }
        let cover: Cover = granted.into_iter().collect();
        prop_assert_eq!(cover.holds_lease(&store, lease), keys.iter().all(|key| cover.contains(key)));
    }
}

//! Users and roles, and requests in their names.

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::{authpb, etcdserverpb as pb};

use super::Generator;
use crate::operation::{Operation, Users};

pub(crate) const ROOT: &str = "root";
const USERS: [&str; 4] = [ROOT, "u1", "u2", "u3"];
const ROLES: [&str; 4] = ["root", "r1", "r2", "r3"];
pub(crate) const PASSWORD: &str = "p";
/// What roles are permitted. No key begins two of them: among those etcd finds the one to change by a sort that is not stable.
const RANGES: [(&[u8], &[u8]); 10] = [
    (b"\0", b"\0"),
    (b"a", b""),
    (b"a/", b"a0"),
    (b"a/b", b"\xff"),
    (b"b", b"c"),
    (b"k/", b"k0"),
    (b"k/1", b"k/2"),
    (b"k/25", b""),
    (b"\xff", b"\0"),
    // Refused.
    (b"z", b"b"),
];

impl Generator {
    /// Draws operations of many users, from a store where nobody is one.
    pub(crate) fn with_users(seed: u64) -> Self {
        let mut this = Self { has_users: true, ..Self::new(seed) };
        let mut begin = |users| this.planned.push_back(Operation::Users(users));
        let (name, user, role) = ("root".to_owned(), "root".to_owned(), "root".to_owned());
        begin(Users::Enable);
        begin(Users::Add(pb::AuthUserAddRequest {
            name: name.clone(),
            password: PASSWORD.to_owned(),
            ..Default::default()
        }));
        begin(Users::AddRole(pb::AuthRoleAddRequest { name }));
        begin(Users::GrantRole(pb::AuthUserGrantRoleRequest { user, role }));
        this
    }

    /// A name, mostly of the first ones; none once in a while.
    fn name(&mut self, names: &[&str]) -> String {
        if self.chance(20) { String::new() } else { self.pick(names).to_owned() }
    }

    fn user(&mut self) -> String {
        // What happens to root happens to everyone.
        if self.chance(60) { "root".to_owned() } else { self.name(&USERS[1..]) }
    }

    fn role(&mut self) -> String {
        if self.chance(60) { "root".to_owned() } else { self.name(&ROLES[1..]) }
    }

    fn password(&mut self) -> String {
        self.pick(&[PASSWORD, PASSWORD, PASSWORD, PASSWORD, "q", ""]).to_owned()
    }

    pub(super) fn draw_of_users(&mut self) -> Operation {
        let (operation, by_root) = match self.dice.u32(..100) {
            // Here etcd does for everyone what ours does for some: see NOT_DRAWN.
            65 => (self.compact(), 1000),
            66 => (self.hash_kv(), 1000),
            67 => (Operation::Alarms, 1000),
            68..72 => (Operation::Grant(self.grant()), 300),
            0..30 => (Operation::Put(self.put()), 150),
            30..50 => (Operation::Range(self.range()), 150),
            50..56 => (Operation::DeleteRange(self.delete_range()), 150),
            56..65 => (Operation::Txn(self.txn()), 150),
            72..76 => (Operation::Revoke(self.revoke()), 300),
            76..88 => return Operation::Users(self.authenticate()),
            _ => (Operation::Users(self.change_of_users()), 800),
        };
        let is_let_pass = has_inner_txn(&operation) || looks_before_it_puts(&operation);
        let by_root = if is_let_pass || is_backward(&operation) { 1000 } else { by_root };
        let has_a_name = by_root == 1000
            || matches!(operation, Operation::Grant(_) | Operation::Revoke(_))
            || matches!(&operation, Operation::Txn(txn) if *txn == pb::TxnRequest::default());
        if !has_a_name && self.chance(60) {
            return operation;
        }
        let user = if self.chance(by_root) { "root" } else { self.pick(&["u1", "u1", "u2", "u3", "nobody"]) };
        Operation::As { user: user.to_owned(), operation: Box::new(operation) }
    }

    fn permitted(&mut self) -> (Bytes, Bytes) {
        let (key, range_end) = self.pick(&RANGES);
        (Bytes::from_static(key), Bytes::from_static(range_end))
    }

    fn authenticate(&mut self) -> Users {
        let name = if self.chance(50) { self.name(&["nobody"]) } else { self.pick(&USERS).to_owned() };
        Users::Authenticate(pb::AuthenticateRequest { name, password: self.password() })
    }

    fn change_of_users(&mut self) -> Users {
        match self.dice.u32(..40) {
            0..3 => Users::Enable,
            3 => Users::Disable,
            4 => Users::Status,
            5..10 => {
                let options = self.chance(200).then_some(authpb::UserAddOptions { no_password: true });
                let password = self.password();
                Users::Add(pb::AuthUserAddRequest {
                    name: self.user(),
                    password,
                    options,
                    ..Default::default()
                })
            }
            10..12 => Users::Get(pb::AuthUserGetRequest { name: self.user() }),
            12 => Users::List,
            13 => Users::Delete(pb::AuthUserDeleteRequest { name: self.user() }),
            14 => {
                let (name, password) = (self.name(&USERS[1..]), self.password());
                Users::ChangePassword(pb::AuthUserChangePasswordRequest {
                    name,
                    password,
                    ..Default::default()
                })
            }
            15..20 => Users::GrantRole(pb::AuthUserGrantRoleRequest { user: self.user(), role: self.role() }),
            20..22 => {
                Users::RevokeRole(pb::AuthUserRevokeRoleRequest { name: self.user(), role: self.role() })
            }
            22..26 => Users::AddRole(pb::AuthRoleAddRequest { name: self.role() }),
            26..28 => Users::GetRole(pb::AuthRoleGetRequest { role: self.role() }),
            28 => Users::ListRoles,
            29 => Users::DeleteRole(pb::AuthRoleDeleteRequest { role: self.role() }),
            30..38 => {
                let (key, range_end) = self.permitted();
                let perm_type = self.dice.i32(0..3);
                let perm = authpb::Permission { perm_type, key, range_end };
                let perm = (!self.chance(20)).then_some(perm);
                Users::GrantPermission(pb::AuthRoleGrantPermissionRequest { name: self.role(), perm })
            }
            _ => {
                let (key, range_end) = self.permitted();
                let role = self.role();
                Users::RevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
            }
        }
    }
}

/// Whether a transaction is in another, whose operations etcd lets everyone do.
fn has_inner_txn(operation: &Operation) -> bool {
    let Operation::Txn(txn) = operation else { return false };
    let is_txn = |op: &pb::RequestOp| matches!(op.request, Some(pb::request_op::Request::RequestTxn(_)));
    txn.success.iter().chain(&txn.failure).any(is_txn)
}

/// Whether a transaction wants to know what was at a key that it puts, for which etcd does not ask for the right to read.
fn looks_before_it_puts(operation: &Operation) -> bool {
    let Operation::Txn(txn) = operation else { return false };
    let looks = |op: &pb::RequestOp| matches!(&op.request, Some(pb::request_op::Request::RequestPut(put)) if put.prev_kv);
    txn.success.iter().chain(&txn.failure).any(looks)
}

/// Whether some range ends before it begins. Whether one may ask for such depends on how etcd's tree of permissions is shaped.
fn is_backward(operation: &Operation) -> bool {
    let is_backward = |key: &[u8], end: &[u8]| !matches!(end, [] | [0]) && key >= end;
    match operation {
        Operation::Range(range) => is_backward(&range.key, &range.range_end),
        Operation::DeleteRange(range) => is_backward(&range.key, &range.range_end),
        Operation::Txn(txn) => {
            let in_op = |op: &pb::RequestOp| match &op.request {
                Some(pb::request_op::Request::RequestRange(range)) => {
                    is_backward(&range.key, &range.range_end)
                }
                Some(pb::request_op::Request::RequestDeleteRange(range)) => {
                    is_backward(&range.key, &range.range_end)
                }
                _ => false,
            };
            txn.success.iter().chain(&txn.failure).any(in_op)
                || txn.compare.iter().any(|compare| is_backward(&compare.key, &compare.range_end))
        }
        _ => false,
    }
}

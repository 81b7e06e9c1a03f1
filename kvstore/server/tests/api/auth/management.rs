//! How users and roles come, change and go.

use landbridge_kvstore_server::grpc::proto::{authpb, etcdserverpb as pb};

use super::{Transcript, User, compare};

#[tokio::test]
async fn users_and_roles_change_as_in_etcd() {
    compare(include_str!("management.txt"), async |nobody| {
        let mut lines = Transcript::default();
        while_nobody_is_asked(&mut lines, &nobody).await;
        let root = nobody.log_in("root", "secret").await;
        what_stays(&mut lines, &root).await;
        who_may(&mut lines, &nobody, &root).await;
        lines
    })
    .await;
}

async fn status(lines: &mut Transcript, user: &User) {
    lines.note("status", user.auth_status().await, |status| (status.enabled, status.auth_revision));
}

async fn change_password(
    lines: &mut Transcript,
    user: &User,
    name: &str,
    password: &str,
    hashed_password: &str,
) {
    let request = pb::AuthUserChangePasswordRequest {
        name: name.into(),
        password: password.into(),
        hashed_password: hashed_password.into(),
    };
    let answer = user.auth().user_change_password(user.ask(request)).await;
    lines.done(&format!("change password of {name:?}"), answer);
}

async fn revoke_role(lines: &mut Transcript, user: &User, name: &str, role: &str) {
    let request = pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
    let answer = user.auth().user_revoke_role(user.ask(request)).await;
    lines.done(&format!("revoke {role:?} from {name:?}"), answer);
}

async fn delete_user(lines: &mut Transcript, user: &User, name: &str) {
    let answer = user.auth().user_delete(user.ask(pb::AuthUserDeleteRequest { name: name.into() })).await;
    lines.done(&format!("delete user {name:?}"), answer);
}

async fn delete_role(lines: &mut Transcript, user: &User, role: &str) {
    let answer = user.auth().role_delete(user.ask(pb::AuthRoleDeleteRequest { role: role.into() })).await;
    lines.done(&format!("delete role {role:?}"), answer);
}

async fn get_user(lines: &mut Transcript, user: &User, name: &str) {
    let answer = user.auth().user_get(user.ask(pb::AuthUserGetRequest { name: name.into() })).await;
    lines.note(&format!("user {name:?}"), answer, |user| user.roles);
}

async fn get_role(lines: &mut Transcript, user: &User, role: &str) {
    let answer = user.auth().role_get(user.ask(pb::AuthRoleGetRequest { role: role.into() })).await;
    let shown = |role: pb::AuthRoleGetResponse| -> Vec<_> {
        role.perm.into_iter().map(|perm| (perm.perm_type, perm.key, perm.range_end)).collect()
    };
    lines.note(&format!("role {role:?}"), answer, shown);
}

async fn lists(lines: &mut Transcript, user: &User) {
    let users = user.auth().user_list(user.ask(pb::AuthUserListRequest {})).await;
    lines.note("users", users, |list| list.users);
    let roles = user.auth().role_list(user.ask(pb::AuthRoleListRequest {})).await;
    lines.note("roles", roles, |list| list.roles);
}

async fn while_nobody_is_asked(lines: &mut Transcript, nobody: &User) {
    status(lines, nobody).await;
    lines.done("authenticate", nobody.authenticate("root", "secret").await);
    lines.done("enable", nobody.enable().await);
    let disable = nobody.auth().auth_disable(nobody.ask(pb::AuthDisableRequest {})).await;
    lines.done("disable", disable);
    lines.done("add user without a name", nobody.user_add("", "secret").await);
    lines.done("add user root", nobody.user_add("root", "secret").await);
    lines.done("add user root again", nobody.user_add("root", "other").await);
    lines.done("add user with a long password", nobody.user_add("long", &"x".repeat(73)).await);
    lines.done("enable", nobody.enable().await);
    lines.done("grant root to root", nobody.grant_role("root", "root").await);
    lines.done("grant root to root again", nobody.grant_role("root", "root").await);
    lines.done("grant what is no role", nobody.grant_role("root", "none").await);
    lines.done("grant to what is no user", nobody.grant_role("none", "none").await);
    lines.done("add role without a name", nobody.role_add("").await);
    for role in ["b", "a", "b"] {
        lines.done(&format!("add role {role}"), nobody.role_add(role).await);
    }
    for (kind, key, end) in [
        (0, "k", ""),
        (1, "k", "l"),
        (2, "k", "m"),
        (2, "k", ""),
        (0, "k", "l"),
        (0, "a", "\0"),
        (0, "", ""),
        (0, "", "\0"),
        (0, "b", "b"),
        (0, "b", "a"),
        (7, "z", ""),
    ] {
        lines.done(&format!("grant {kind} on {key:?} {end:?}"), nobody.grant("a", kind, key, end).await);
    }
    lines.done("grant on what is no role", nobody.grant("none", 0, "k", "").await);
    let nothing = pb::AuthRoleGrantPermissionRequest { name: "a".into(), perm: None };
    lines.done("grant nothing", nobody.auth().role_grant_permission(nobody.ask(nothing)).await);
    get_role(lines, nobody, "a").await;
    for (role, key, end) in
        [("a", "k", "l"), ("a", "k", "l"), ("a", "k", "x"), ("none", "k", "l"), ("a", "a", "\0")]
    {
        let request =
            pb::AuthRoleRevokePermissionRequest { role: role.into(), key: key.into(), range_end: end.into() };
        let answer = nobody.auth().role_revoke_permission(nobody.ask(request)).await;
        lines.done(&format!("take {key:?} {end:?} from {role}"), answer);
    }
    for role in ["a", "b", "none", ""] {
        get_role(lines, nobody, role).await;
    }
    let options = Some(authpb::UserAddOptions { no_password: true });
    let request = pb::AuthUserAddRequest {
        name: "cert".into(),
        password: "ignored".into(),
        options,
        ..Default::default()
    };
    lines.done("add user without a password", nobody.auth().user_add(nobody.ask(request)).await);
    lines.done("grant b to cert", nobody.grant_role("cert", "b").await);
    lines.done("grant a to cert", nobody.grant_role("cert", "a").await);
    for name in ["cert", "root", "none", ""] {
        get_user(lines, nobody, name).await;
    }
    lists(lines, nobody).await;
    delete_role(lines, nobody, "none").await;
    delete_role(lines, nobody, "b").await;
    get_user(lines, nobody, "cert").await;
    revoke_role(lines, nobody, "cert", "b").await;
    revoke_role(lines, nobody, "none", "b").await;
    change_password(lines, nobody, "none", "other", "").await;
    change_password(lines, nobody, "cert", "other", "").await;
    change_password(lines, nobody, "cert", "", "no base64!").await;
    change_password(lines, nobody, "root", "", "no base64!").await;
    status(lines, nobody).await;
    lines.done("enable", nobody.enable().await);
    for (name, password) in [
        ("root", "wrong"),
        ("none", "secret"),
        ("", ""),
        ("cert", "other"),
        ("root", ""),
        ("root", "secretx"),
    ] {
        let answer = nobody.authenticate(name, password).await;
        lines.done(&format!("authenticate {name:?} by {password:?}"), answer);
    }
}

async fn what_stays(lines: &mut Transcript, root: &User) {
    status(lines, root).await;
    lines.done("enable", root.enable().await);
    status(lines, root).await;
    lines.done("add role root", root.role_add("root").await);
    delete_user(lines, root, "root").await;
    delete_role(lines, root, "root").await;
    revoke_role(lines, root, "root", "root").await;
    delete_user(lines, root, "none").await;
    lines.done("add user other", root.user_add("other", "secret").await);
    change_password(lines, root, "other", "changed", "").await;
    lines.done("authenticate other by the old", root.authenticate("other", "secret").await);
    lines.note("authenticate other", root.authenticate("other", "changed").await, |answer| {
        answer.token.split('.').next().map(str::len)
    });
    change_password(lines, root, "other", "", "").await;
    lines.done("authenticate other by nothing", root.authenticate("other", "").await);
    status(lines, root).await;
}

async fn who_may(lines: &mut Transcript, nobody: &User, root: &User) {
    root.make("ann", &[(0, "a", "")]).await;
    let ann = nobody.log_in("ann", "secret").await;
    let stranger = User { token: Some("abcdefghijklmnop.1".into()), ..nobody.clone() };
    let empty = User { token: Some(String::new()), ..nobody.clone() };
    for (who, user) in
        [("nobody", nobody), ("ann", &ann), ("a stranger", &stranger), ("an empty token", &empty)]
    {
        lines.0.extend(["-- ", who, "\n"]);
        status(lines, user).await;
        lists(lines, user).await;
        for name in ["ann", "root", "none", ""] {
            get_user(lines, user, name).await;
        }
        for role in ["ann", "a", "none"] {
            get_role(lines, user, role).await;
        }
        lines.done("enable", user.enable().await);
        lines.done("disable", user.auth().auth_disable(user.ask(pb::AuthDisableRequest {})).await);
        lines.done("add user", user.user_add("eve", "secret").await);
        lines.done("add role", user.role_add("eve").await);
        lines.done("grant", user.grant("ann", 2, "z", "").await);
        lines.done("grant role", user.grant_role("ann", "root").await);
        change_password(lines, user, "ann", "other", "").await;
        delete_user(lines, user, "other").await;
        delete_role(lines, user, "a").await;
        revoke_role(lines, user, "ann", "ann").await;
    }
    lines.0.push_str("-- ann, whom root deletes\n");
    delete_user(lines, root, "ann").await;
    get_user(lines, &ann, "ann").await;
    lines.0.push_str("-- off\n");
    lines.done("disable", root.auth().auth_disable(root.ask(pb::AuthDisableRequest {})).await);
    status(lines, &stranger).await;
    delete_role(lines, nobody, "root").await;
    get_user(lines, nobody, "root").await;
    delete_user(lines, nobody, "root").await;
    lines.done("enable", nobody.enable().await);
    lists(lines, nobody).await;
    status(lines, nobody).await;
}

//! Users by their certificates, as Cilium's clusters have them.

use landbridge_kvstore_server::grpc::proto::{authpb, etcdserverpb as pb};
use landbridge_lab::requirement::{Requirement, etcd, met};

use super::{Transcript, User, assert_lines, keys, quick};
use crate::pki::{Ca, client_tls, connect};
use crate::store::{Etcd, Ours, soon};

async fn script(ca: &Ca, endpoint: &str) -> Transcript {
    let user = async |name: &str| {
        let tls = client_tls(&ca.pem(), Some(&ca.sign(name)));
        let connecting = async {
            loop {
                match connect(endpoint, tls.clone()).await {
                    Ok(channel) => break channel,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        };
        User::nobody(soon(connecting).await)
    };
    let mut lines = Transcript::default();
    let (root, remote) = (user("root").await, user("remote").await);
    for name in ["root", "remote"] {
        let options = Some(authpb::UserAddOptions { no_password: true });
        let request = pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() };
        root.auth().user_add(root.ask(request)).await.unwrap();
    }
    root.role_add("remote").await.unwrap();
    root.grant("remote", 0, "cilium/", "cilium0").await.unwrap();
    root.grant_role("remote", "remote").await.unwrap();
    root.grant_role("root", "root").await.unwrap();
    root.enable().await.unwrap();
    lines.done("root puts", root.put("cilium/a").await);
    lines.note("remote gets", remote.get("cilium/", "cilium0").await, keys);
    lines.done("remote puts", remote.put("cilium/a").await);
    lines.done("remote authenticates", remote.authenticate("remote", "").await);
    let stranger = user("stranger").await;
    lines.note("a stranger gets", stranger.get("cilium/a", "").await, keys);
    lines.done("a stranger adds a user", stranger.user_add("eve", "secret").await);
    let unnamed = user("").await;
    lines.note("one without a name gets", unnamed.get("cilium/a", "").await, keys);
    lines.done("one without a name adds a user", unnamed.user_add("eve", "secret").await);
    root.user_add("ann", "secret").await.unwrap();
    let ann = remote.log_in("ann", "secret").await;
    lines.note("the token is of another", ann.get("cilium/a", "").await, keys);
    root.grant_role("ann", "root").await.unwrap();
    lines.done("and that one may more", ann.put("cilium/b").await);
    let wrong = User { token: Some("abcdefghijklmnop.1".into()), ..root.clone() };
    lines.done("a wrong token is not helped by a certificate", wrong.put("cilium/b").await);
    let mut gateway = root.ask(super::put("cilium/b"));
    gateway.metadata_mut().insert("grpcgateway-accept", "*/*".parse().unwrap());
    lines.done("a gateway's certificate says nothing", root.kv().put(gateway).await);
    lines
}

#[tokio::test]
async fn a_certificate_names_its_user_as_in_etcd() {
    let ca = Ca::new("ours");
    let expected = include_str!("tls.txt");
    let ours = Ours::start_with_users(tempfile::tempdir().unwrap(), quick(), Some(ca.server_files())).await;
    let written = script(&ca, &ours.endpoint("https")).await.0;
    ours.stop().await;
    if met(&[Requirement::Etcd]) {
        let files = ca.server_files();
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let flags = [
            ("--cert-file", path(&files.certificate)),
            ("--key-file", path(&files.key)),
            ("--trusted-ca-file", path(&ca.path())),
        ];
        let mut flags: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value]).collect();
        flags.extend(["--client-cert-auth", "--bcrypt-cost", "4"]);
        let etcd = Etcd::start_with(&etcd().unwrap(), &flags);
        let etcds = script(&ca, &etcd.endpoint).await.0;
        assert_lines(&etcds, expected, "etcd's and what is noted as etcd's");
    }
    assert_lines(&written, expected, "ours and etcd's");
}

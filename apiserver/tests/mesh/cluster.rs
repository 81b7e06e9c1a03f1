//! A cluster of one node, served in this process.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use landbridge_apiserver::config::{Config, ServeArgs};
use landbridge_apiserver::pki::Pki;
use landbridge_apiserver::serve::Apiserver;
use landbridge_apiserver::users::User;
use landbridge_apiserver_api::v1::admin_client::AdminClient;
use landbridge_apiserver_api::v1::{
    AddPeerRequest, ConfirmPeerRequest, DescribeClusterRequest, DescribeClusterResponse, GetStatusRequest,
    GetStatusResponse, RequestCertificateRequest, SignCertificateRequest,
};
use landbridge_kvstore_client::{ClientOptions, KvClient, TlsFiles};
use landbridge_kvstore_schema::ClusterName;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long anything may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) name: &'static str,
    pub(crate) args: ServeArgs,
    pub(crate) admin: AdminClient<Channel>,
    pub(crate) store: KvClient,
    folder: TempDir,
    running: Option<(oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>)>,
}

impl Cluster {
    /// Starts the cluster `name` with the number `id`, the pods of `10.<id>.0.0/16` and a node `<name>1`.
    pub(crate) async fn start(name: &'static str, id: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = ServeArgs {
            cluster: name.to_owned(),
            cluster_id: id.into(),
            max_clusters: 255,
            data_dir: folder.path().join("data"),
            manifests: folder.path().join("manifests"),
            listen: format!("127.0.0.1:{port}").parse().unwrap(),
            advertise: vec![format!("https://127.0.0.1:{port}")],
            admin_socket: folder.path().join("admin.sock"),
            pod_range: vec![format!("10.{id}.0.0/16").parse().unwrap()],
            service_range: "10.96.0.0/16".parse().unwrap(),
        };
        fs::create_dir(&args.manifests).unwrap();
        let node = |number: u8| {
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}{number}}}\nspec: {{podCIDR: 10.{id}.{number}.0/24}}\n\
                 status: {{addresses: [{{type: InternalIP, address: 172.30.{id}.{number}}}]}}\n"
            )
        };
        fs::write(args.manifests.join("node1.yaml"), node(1)).unwrap();
        fs::write(args.manifests.join("shop.yaml"), shop(name, id)).unwrap();
        let running = run(&args).await;
        let socket = format!("unix:{}", args.admin_socket.display());
        let admin = AdminClient::connect(socket).await.unwrap();
        let store = store(&folder, &args, name, &format!("admin-{name}"));
        Self { name, args, admin, store, folder, running: Some(running) }
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        let _ = stop.send(());
        task.await.unwrap().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        self.running = Some(run(&self.args).await);
        let socket = format!("unix:{}", self.args.admin_socket.display());
        self.admin = AdminClient::connect(socket).await.unwrap();
    }

    /// A client of the store with a certificate for `user`.
    pub(crate) fn store_as(&self, user: &str) -> KvClient {
        store(&self.folder, &self.args, self.name, user)
    }

    pub(crate) fn key_file(&self, peer: &str) -> PathBuf {
        self.args.data_dir.join("peers").join(peer).join("key.pem")
    }

    pub(crate) fn manifest(&self, name: &str) -> PathBuf {
        self.args.manifests.join(name)
    }

    pub(crate) async fn describe(&mut self) -> DescribeClusterResponse {
        // The node has to be known: it is part of the description.
        let mut admin = self.admin.clone();
        eventually("the node is described", async || {
            let said = admin.describe_cluster(DescribeClusterRequest {}).await.ok()?.into_inner();
            (!said.nodes.is_empty()).then_some(said)
        })
        .await
    }

    pub(crate) async fn status(&mut self) -> GetStatusResponse {
        self.admin.get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// All keys of the store below `prefix`, with their values.
    pub(crate) async fn list(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let records = self.store.list(prefix).await.unwrap().key_values;
        records.into_iter().map(|record| (record.key, record.value.to_vec())).collect()
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        self.list(prefix).await.into_iter().map(|(key, _)| key).collect()
    }

    /// Makes a request for a certificate of `peer`, and has it signed.
    pub(crate) async fn certificate_from(&mut self, peer: &mut Cluster) -> String {
        let request = RequestCertificateRequest { peer: peer.name.to_owned() };
        let certificate_request =
            self.admin.request_certificate(request).await.unwrap().into_inner().certificate_request;
        let request = SignCertificateRequest { peer: self.name.to_owned(), certificate_request };
        peer.admin.sign_certificate(request).await.unwrap().into_inner().certificate
    }

    /// Begins to read `peer`.
    pub(crate) async fn add(&mut self, peer: &mut Cluster, within: u32) -> Result<i64, Status> {
        let request = AddPeerRequest {
            certificate: self.certificate_from(peer).await,
            peer: Some(peer.describe().await),
            confirm_within_seconds: within,
            dry_run: false,
        };
        Ok(self.admin.add_peer(request).await?.into_inner().revision)
    }

    pub(crate) async fn confirm(&mut self, peer: &str) -> Result<(), Code> {
        let request = ConfirmPeerRequest { peer: peer.to_owned() };
        self.admin.confirm_peer(request).await.map(|_| ()).map_err(|status| status.code())
    }

    /// Waits until all records of `peer` are there.
    pub(crate) async fn synced(&mut self, peer: &str) {
        let admin = self.admin.clone();
        eventually("a peer is synced", async || {
            let status = admin.clone().get_status(GetStatusRequest {}).await.ok()?.into_inner();
            status.peers.iter().find(|known| known.name == peer && known.state == "synced").map(|_| ())
        })
        .await;
    }
}

/// Connects both clusters with each other.
pub(crate) async fn connect(one: &mut Cluster, other: &mut Cluster) {
    one.add(other, 60).await.unwrap();
    other.add(one, 60).await.unwrap();
    one.confirm(other.name).await.unwrap();
    other.confirm(one.name).await.unwrap();
    one.synced(other.name).await;
    other.synced(one.name).await;
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn run(args: &ServeArgs) -> (oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let apiserver = Apiserver::start(Config::try_from(args.clone()).unwrap()).await.unwrap();
    let shutdown = async {
        let _ = stopped.await;
    };
    (stop, tokio::spawn(apiserver.run_until(shutdown)))
}

fn store(folder: &TempDir, args: &ServeArgs, name: &str, user: &str) -> KvClient {
    let cluster = ClusterName::new(name).unwrap();
    let pki = Pki::load(&args.data_dir.join("pki"), &cluster, SystemTime::now()).unwrap();
    let issued = pki.issue_client(&User::parse(&cluster, user).unwrap(), SystemTime::now()).unwrap();
    let out = folder.path().join(user);
    fs::create_dir_all(&out).unwrap();
    issued.write_to(&out).unwrap();
    let tls =
        TlsFiles { ca: out.join("ca.crt"), certificate: out.join("client.crt"), key: out.join("client.key") };
    let endpoints = args.advertise.clone();
    KvClient::new(ClientOptions { endpoints, tls: Some(tls), request_timeout: Duration::from_secs(5) })
        .unwrap()
}

/// A pod behind a global service.
fn shop(name: &str, id: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop, labels: {{app: cart}}}}\n\
         spec:\n  nodeName: {name}1\n  containers: [{{name: c, image: i, ports: [{{containerPort: 80}}]}}]\n\
         status:\n  phase: Running\n  podIP: 10.{id}.1.7\n  podIPs: [{{ip: 10.{id}.1.7}}]\n\
         \x20 conditions: [{{type: Ready, status: \"True\"}}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\n  namespace: shop\n\
         \x20 annotations: {{service.cilium.io/global: \"true\"}}\n\
         spec: {{selector: {{app: cart}}, ports: [{{name: http, port: 80}}]}}\n"
    )
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }
}

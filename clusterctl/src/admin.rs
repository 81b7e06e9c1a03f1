//! The admin API of a cluster, as a command talks to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use hyper_util::rt::TokioIo;
use landbridge_apiserver_api::v1::admin_client::AdminClient;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::contexts::ClusterContext;
use crate::output::escaped;

/// How long any one call may take. None of them waits for another cluster for longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A cluster whose admin API answers.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// What the command line calls it.
    pub(crate) context: ClusterContext,
    /// The API.
    pub(crate) api: AdminClient<Channel>,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.context.name)
    }
}

impl Cluster {
    /// Opens the admin API of a cluster.
    pub(crate) async fn open(context: ClusterContext) -> anyhow::Result<Self> {
        let Some(path) = context.admin.strip_prefix("unix://").map(PathBuf::from) else {
            bail!(
                "cluster {} has its admin API at {:?}, which is no unix:// address: correct the configuration",
                context.name,
                context.admin
            );
        };
        // The address is not looked at: the connector below knows where to go.
        let endpoint = Endpoint::from_static("http://admin.landbridge.io")
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
            anyhow!(
                "cluster {} does not answer at {} ({}): is its landbridge-apiserver running?",
                context.name,
                context.admin,
                anyhow::Error::from(error).root_cause()
            )
        })?;
        Ok(Self { context, api: AdminClient::new(channel) })
    }

    /// What an answer of the cluster says, as an error that names the cluster.
    pub(crate) fn refused(&self, status: &Status) -> anyhow::Error {
        anyhow!("cluster {self}: {}", escaped(status.message()))
    }
}

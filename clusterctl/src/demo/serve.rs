//! `clusterctl demo serve`: the program that the demo's pods run.

use std::convert::Infallible;
use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use clap::Args;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::runtime;

/// Answer every HTTP request with the pod's name and cluster
///
/// What the demo's pods run. The names come from the variables `POD_NAME` and `CLUSTER`.
#[derive(Args)]
pub(super) struct Serve {
    /// Port to listen at, on every address
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The pod that answers.
    pub(super) pod: String,
    /// The cluster that it is in.
    pub(super) cluster: String,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let name = |variable: &str| {
            env::var(variable).with_context(|| format!("the variable {variable} is not set"))
        };
        let answer = Answer { pod: name("POD_NAME")?, cluster: name("CLUSTER")? };
        let body = Bytes::from(serde_json::to_vec(&answer).context("cannot write the answer as JSON")?);
        // The first one is of both families. On a machine without IPv6 it cannot be had.
        let addresses = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        runtime()?.block_on(serve(addresses.map(|ip| SocketAddr::new(ip, self.port)), body))
    }
}

async fn serve(addresses: [SocketAddr; 2], body: Bytes) -> anyhow::Result<()> {
    let [address, _] = addresses;
    let listener = TcpListener::bind(&addresses[..]).await;
    let listener = listener.with_context(|| format!("cannot listen at {address}"))?;
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept connections")?;
        let body = body.clone();
        let service = service_fn(move |_: Request<Incoming>| {
            let response =
                Response::builder().header(CONTENT_TYPE, "application/json").body(Full::new(body.clone()));
            async move { Ok::<_, Infallible>(response.expect("the header is a valid one")) }
        });
        // Whatever a client does to its connection is its own affair.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

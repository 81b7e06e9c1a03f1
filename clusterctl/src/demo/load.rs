//! `clusterctl demo load`: a steady stream of requests, and who answered each.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::serve::Answer;
use crate::runtime;

/// Send requests at a steady pace and print who answers
///
/// Every request has a connection of its own and is sent on time, whether or not the ones before it were answered.
/// Prints a JSON document per request, in the order that they are sent: what comes before one is known as a whole.
#[derive(Args)]
pub(super) struct Load {
    /// Address and port to ask
    address: SocketAddr,
    /// Time from one request to the next
    #[arg(long, default_value = "20ms", value_name = "TIME")]
    every: humantime::Duration,
    /// How long an answer may take
    #[arg(long, default_value = "1s", value_name = "TIME")]
    timeout: humantime::Duration,
    /// How many requests to send [default: until it is told to end]
    #[arg(long)]
    count: Option<u64>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// When it was sent, in microseconds since 1970.
    pub(super) sent_micros: u64,
    /// How long it took, in microseconds.
    pub(super) took_micros: u64,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answer>,
    /// Why nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Load {
    pub(super) fn run(self) -> anyhow::Result<()> {
        runtime()?.block_on(async {
            let mut ticks = interval(*self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut under_way = JoinSet::new();
            let count = self.count.unwrap_or(u64::MAX);
            let (mut sent, mut printed) = (0, 0);
            // Those that ended before one that was sent earlier.
            let mut ended = BTreeMap::new();
            while sent < count || !under_way.is_empty() {
                tokio::select! {
                    _ = ticks.tick(), if sent < count => {
                        let (number, address, limit) = (sent, self.address, *self.timeout);
                        under_way.spawn(async move { (number, request(address, limit).await) });
                        sent += 1;
                    }
                    Some(outcome) = under_way.join_next() => {
                        let (number, outcome) = outcome.context("a request did not run to its end")?;
                        ended.insert(number, outcome);
                        while let Some(outcome) = ended.remove(&printed) {
                            print(&outcome)?;
                            printed += 1;
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

async fn request(address: SocketAddr, limit: Duration) -> Outcome {
    let sent = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = Instant::now();
    let answer = match timeout(limit, ask(address)).await {
        Ok(answer) => answer,
        Err(_) => Err(anyhow::anyhow!("no answer within {} ms", limit.as_millis())),
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (answer, error) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Outcome { sent_micros: micros(sent), took_micros: micros(start.elapsed()), answer, error }
}

async fn ask(address: SocketAddr) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.context("cannot speak HTTP")?;
    let request = Request::builder()
        .uri("/")
        .header(HOST, address.to_string())
        .body(Empty::new())
        .context("cannot make the request")?;
    // The connection ends with the request, or is dropped with it at its timeout.
    let exchange = async {
        let response = sender.send_request(request).await.context("no response")?;
        let body = response.into_body().collect().await.context("the response ends early")?.to_bytes();
        serde_json::from_slice(&body).context("the response is not one of the demo's pods")
    };
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = connection => {
            ended.context("the connection broke")?;
            // It may have ended with the response.
            exchange.await
        }
    }
}

fn print(outcome: &Outcome) -> anyhow::Result<()> {
    let line = serde_json::to_string(outcome).context("cannot write the outcome as JSON")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

//! A lease that is kept alive, and one that is not.
//!
//! Whoever is told that a lease lives counts from when it asked: before its time to live is over from then on, nobody may
//! see its end, whichever members led meanwhile.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::clients::{CLIENT_PATIENCE, Channels, send};
use crate::history::{Op, Record, Recorder, Told};
use crate::plan::{CLIENTS, MEMBERS};

/// What is asked for. An election is shorter.
const TTL_SECONDS: i64 = 2;
const RENEW_EVERY: Duration = Duration::from_millis(250);

/// The lease that lives at the moment, for clients that put keys with it; 0 if there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct CurrentLease(Arc<AtomicI64>);

impl CurrentLease {
    pub(crate) fn id(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What was told of one lease.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// A key that ends with it.
    pub(crate) key: String,
    pub(crate) ttl: Duration,
    /// When what was confirmed was asked for: that it is granted, and that it lives on.
    pub(crate) confirmed: Vec<Instant>,
    /// When a member said that it is gone.
    pub(crate) denied: Option<Instant>,
}

impl Kept {
    /// Whether it lived as long as it was told to, if its end was seen at `gone`.
    pub(crate) fn check(&self, gone: Option<Instant>) -> Result<(), String> {
        for end in [gone, self.denied].into_iter().flatten() {
            for confirmed in &self.confirmed {
                if end < *confirmed + self.ttl {
                    let after = end.saturating_duration_since(*confirmed);
                    return Err(format!(
                        "the lease of {} was to live for {:?}, and ended {after:?} after that was asked for",
                        self.key, self.ttl
                    ));
                }
            }
        }
        Ok(())
    }
}

pub(crate) struct Keeper {
    pub(crate) channels: Channels,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) current: CurrentLease,
    pub(crate) kept: Arc<Mutex<Vec<Kept>>>,
}

impl Keeper {
    /// Keeps a lease alive, and makes another when it has ended all the same.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let keeping = async {
            for number in 0.. {
                self.keep(number).await;
                self.current.0.store(0, Ordering::SeqCst);
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    /// Keeps one lease for as long as it can be.
    async fn keep(&mut self, number: usize) {
        let mut member = number % MEMBERS;
        let Some((id, kept)) = self.grant(number, member).await else {
            sleep(RENEW_EVERY).await;
            return;
        };
        let place = {
            let mut all = self.kept.lock().unwrap();
            all.push(kept);
            all.len() - 1
        };
        self.current.0.store(id, Ordering::SeqCst);
        loop {
            sleep(RENEW_EVERY).await;
            // Another one each time: all of them pass it on to the leader.
            member = (member + 1) % MEMBERS;
            let Some(channel) = self.channels.to(member) else { continue };
            let asked = Instant::now();
            let Ok(Ok(ttl)) = timeout(CLIENT_PATIENCE, renew(channel, id)).await else { continue };
            let kept = &mut self.kept.lock().unwrap()[place];
            if ttl > 0 {
                kept.confirmed.push(asked);
            } else {
                kept.denied = Some(Instant::now());
                return;
            }
        }
    }

    async fn grant(&mut self, number: usize, member: usize) -> Option<(i64, Kept)> {
        let channel = self.channels.to(member)?;
        let asked = Instant::now();
        let (id, ttl) = timeout(CLIENT_PATIENCE, grant(channel.clone())).await.ok()?.ok()?;
        let key = format!("lease/{number}");
        let op = Op::Put { keys: vec![key.clone()], value: format!("lease.{number}") };
        let asked_at = self.recorder.now();
        let answered = timeout(CLIENT_PATIENCE, send(KvClient::new(channel), &op, id)).await;
        let at = self.recorder.now();
        let told = answered.ok().and_then(Result::ok).map(|(revision, answer)| Told { at, revision, answer });
        let is_put = told.is_some();
        self.recorder.push(Record { client: CLIENTS, member, op, asked_at, told });
        let ttl = Duration::from_secs(ttl.unsigned_abs());
        is_put.then_some((id, Kept { key, ttl, confirmed: vec![asked], denied: None }))
    }
}

/// Makes a lease, and returns its number and time to live.
async fn grant(channel: Channel) -> Result<(i64, i64), tonic::Status> {
    let request = pb::LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
    let granted = LeaseClient::new(channel).lease_grant(request).await?.into_inner();
    Ok((granted.id, granted.ttl))
}

/// The time that a lease lives from now on; 0 if there is none.
async fn renew(channel: Channel, id: i64) -> Result<i64, tonic::Status> {
    let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
    let answer = answers.message().await?;
    answer.map(|answer| answer.ttl).ok_or_else(|| tonic::Status::unavailable("the stream ended"))
}

#[test]
fn a_lease_that_ends_early_is_found() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let kept = Kept { key: String::new(), ttl: second * 2, confirmed: vec![now, now + second], denied: None };
    kept.check(Some(now + second * 3)).unwrap();
    kept.check(Some(now + second * 2)).unwrap_err();
    // Nor may anyone say that one lives that is gone.
    kept.check(Some(now)).unwrap_err();
}

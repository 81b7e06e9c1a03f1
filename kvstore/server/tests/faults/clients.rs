//! Clients that do what the plan says, and take down what they are told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::request_op::Request;
use pb::response_op::Response;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::history::{Answer, Held, Op, Record, Recorder, Told};
use crate::leases::CurrentLease;
use crate::plan::{Call, MEMBERS, steps};

/// How long a client waits for an answer.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_millis(1200);

/// Where members are reached at the moment; nothing for one that does not run.
pub(crate) type Addresses = Arc<Vec<Mutex<Option<SocketAddr>>>>;

/// Ways to the members.
#[derive(Debug)]
pub(crate) struct Channels {
    addresses: Addresses,
    open: [Option<(SocketAddr, Channel)>; MEMBERS],
}

impl Channels {
    pub(crate) fn new(addresses: &Addresses) -> Self {
        Self { addresses: Arc::clone(addresses), open: [const { None }; MEMBERS] }
    }

    /// The way to a member, if it runs.
    pub(crate) fn to(&mut self, member: usize) -> Option<Channel> {
        let address = (*self.addresses[member].lock().unwrap())?;
        if let Some((_, channel)) = self.open[member].as_ref().filter(|(known, _)| *known == address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect_timeout(CLIENT_PATIENCE).connect_lazy();
        self.open[member] = Some((address, channel.clone()));
        Some(channel)
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) seed: u64,
    pub(crate) number: usize,
    pub(crate) channels: Channels,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) lease: CurrentLease,
}

impl Client {
    /// Goes on until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // What it knows of the last key that it saw.
        let mut known: (String, Option<String>) = Default::default();
        for step in steps(self.seed, self.number) {
            if stop.run_until_cancelled(tokio::time::sleep(step.after)).await.is_none() {
                return;
            }
            let lease = self.lease.id();
            let (op, lease) = match step.call {
                Call::Get { key } => (Op::Get { key }, 0),
                Call::Put { key, value, is_leased } => {
                    (Op::Put { keys: vec![key], value }, if is_leased { lease } else { 0 })
                }
                Call::PutTwo { keys, value } => (Op::Put { keys: keys.to_vec(), value }, 0),
                Call::Swap { key, value } => {
                    let expected = if known.0 == key { known.1.clone() } else { None };
                    (Op::Swap { key, expected, value }, 0)
                }
                Call::Delete { key } => (Op::Delete { key }, 0),
            };
            let Some(told) = self.ask(step.member, &op, lease).await else { continue };
            known = match (told, op) {
                (Answer::Holds(held), Op::Get { key } | Op::Swap { key, .. }) => {
                    (key, held.map(|held| held.value))
                }
                (_, Op::Put { mut keys, value }) => (keys.swap_remove(0), Some(value)),
                (_, Op::Swap { key, value, .. }) => (key, Some(value)),
                (_, Op::Get { key } | Op::Delete { key }) => (key, None),
            };
        }
    }

    /// Asks a member, and takes down what comes of it.
    async fn ask(&mut self, member: usize, op: &Op, lease: i64) -> Option<Answer> {
        let kv = KvClient::new(self.channels.to(member)?);
        let asked_at = self.recorder.now();
        let answered = timeout(CLIENT_PATIENCE, send(kv, op, lease)).await;
        let at = self.recorder.now();
        let told = answered.ok().and_then(Result::ok).map(|(revision, answer)| Told { at, revision, answer });
        let answer = told.as_ref().map(|told| told.answer.clone());
        // A read without an answer has done nothing; a write may have.
        if answer.is_some() || !matches!(op, Op::Get { .. }) {
            self.recorder.push(Record { client: self.number, member, op: op.clone(), asked_at, told });
        }
        answer
    }
}

/// What a member answers, and the revision that it tells.
pub(crate) async fn send(
    mut kv: KvClient<Channel>,
    op: &Op,
    lease: i64,
) -> Result<(i64, Answer), tonic::Status> {
    let put = |key: &str, value: &str| pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease,
        ..Default::default()
    };
    let get =
        |key: &str| pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
    let (header, answer) = match op {
        Op::Get { key } => {
            let response = kv.range(get(key)).await?.into_inner();
            (response.header, Answer::Holds(held(&response)))
        }
        Op::Put { keys, value } => match keys.as_slice() {
            [key] => (kv.put(put(key, value)).await?.into_inner().header, Answer::Done),
            keys => {
                let puts = keys.iter().map(|key| request(Request::RequestPut(put(key, value)))).collect();
                let request = pb::TxnRequest { success: puts, ..Default::default() };
                (kv.txn(request).await?.into_inner().header, Answer::Done)
            }
        },
        Op::Swap { key, expected, value } => {
            let (target, union) = match expected {
                Some(expected) => (CompareTarget::Value, TargetUnion::Value(expected.clone().into())),
                None => (CompareTarget::Version, TargetUnion::Version(0)),
            };
            let compare = pb::Compare {
                result: CompareResult::Equal.into(),
                target: target.into(),
                key: Bytes::copy_from_slice(key.as_bytes()),
                target_union: Some(union),
                ..Default::default()
            };
            let response = kv
                .txn(pb::TxnRequest {
                    compare: vec![compare],
                    success: vec![request(Request::RequestPut(put(key, value)))],
                    failure: vec![request(Request::RequestRange(get(key)))],
                })
                .await?
                .into_inner();
            let answer = match response.responses.first().and_then(|response| response.response.as_ref()) {
                Some(Response::ResponseRange(range)) => Answer::Holds(held(range)),
                _ => Answer::Done,
            };
            (response.header, answer)
        }
        Op::Delete { key } => {
            let request =
                pb::DeleteRangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
            let response = kv.delete_range(request).await?.into_inner();
            (response.header, if response.deleted == 0 { Answer::Nothing } else { Answer::Done })
        }
    };
    Ok((header.unwrap_or_default().revision, answer))
}

fn request(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn held(response: &pb::RangeResponse) -> Option<Held> {
    let kv = response.kvs.first()?;
    Some(Held { value: String::from_utf8_lossy(kv.value()).into_owned(), revision: kv.mod_revision() })
}

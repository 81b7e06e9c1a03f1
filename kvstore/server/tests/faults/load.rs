//! Everyone who uses the cluster during a run, and what is checked of what they saw.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::grpc::proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;
use crate::clients::{Addresses, CLIENT_PATIENCE, Channels, Client, send};
use crate::history::{Op, Record, Recorder, Told};
use crate::leases::{CurrentLease, Keeper, Kept};
use crate::order::{Event, Log, check_reads, explain, log_of};
use crate::plan::{CLIENTS, MEMBERS};
use crate::register;
use crate::watchers::{Seen, watch};

/// What a run was made of; not a check, but to be read.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) operations: usize,
    pub(crate) open: usize,
    pub(crate) keys: usize,
    pub(crate) revisions: usize,
    pub(crate) streams: usize,
    pub(crate) leases: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, open, keys, revisions, streams, leases } = self;
        write!(
            formatter,
            "{operations} operations ({open} open) on {keys} keys, {revisions} revisions, {streams} watch streams, \
             {leases} leases"
        )
    }
}

/// What is left when the clients are through.
pub(crate) struct Recording {
    pub(crate) records: Vec<Record>,
    pub(crate) watched: Vec<Seen>,
    pub(crate) kept: Vec<Kept>,
}

/// Everyone who uses the cluster during a run.
pub(crate) struct Load {
    recorder: Arc<Recorder>,
    watched: Vec<Arc<Mutex<Seen>>>,
    kept: Arc<Mutex<Vec<Kept>>>,
    asking: JoinSet<()>,
    watching: JoinSet<()>,
    stop_asking: CancellationToken,
    stop_watching: CancellationToken,
    channels: Channels,
}

impl Load {
    pub(crate) fn start(seed: u64, addresses: &Addresses) -> Self {
        let (recorder, kept) = (Arc::<Recorder>::default(), Arc::<Mutex<Vec<Kept>>>::default());
        let (stop_asking, stop_watching) = (CancellationToken::new(), CancellationToken::new());
        let lease = CurrentLease::default();
        let channels = || Channels::new(addresses);
        let mut asking = JoinSet::new();
        for number in 0..CLIENTS {
            let (recorder, lease) = (Arc::clone(&recorder), lease.clone());
            let client = Client { seed, number, channels: channels(), recorder, lease };
            asking.spawn(client.run(stop_asking.clone()));
        }
        let (recording, keeping) = (Arc::clone(&recorder), Arc::clone(&kept));
        let keeper = Keeper { channels: channels(), recorder: recording, current: lease, kept: keeping };
        asking.spawn(keeper.run(stop_asking.clone()));
        let mut watching = JoinSet::new();
        let watched: Vec<Arc<Mutex<Seen>>> = (0..MEMBERS).map(|_| Arc::default()).collect();
        for (member, seen) in watched.iter().enumerate() {
            watching.spawn(watch(member, channels(), Arc::clone(seen), stop_watching.clone()));
        }
        let channels = channels();
        Self { recorder, watched, kept, asking, watching, stop_asking, stop_watching, channels }
    }

    /// Waits for so many answers.
    pub(crate) async fn goes_on(&self, answers: usize) -> Result<(), String> {
        let enough = self.recorder.answers() + answers;
        let deadline = Instant::now() + PATIENCE;
        while self.recorder.answers() < enough {
            if Instant::now() > deadline {
                return Err(format!("nothing went wrong, and {answers} answers did not come"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends the clients, waits until the leases have ended that nobody keeps alive any more, and until all watchers have
    /// seen that.
    pub(crate) async fn finish(mut self) -> Result<Recording, String> {
        self.stop_asking.cancel();
        while let Some(ended) = self.asking.join_next().await {
            ended.map_err(|error| error.to_string())?;
        }
        let deadline = Instant::now() + PATIENCE;
        // Whatever was acknowledged is before this.
        let marker = loop {
            if let Some(revision) = self.mark().await {
                break revision;
            }
            if Instant::now() > deadline {
                return Err("nothing can be written after the faults".to_owned());
            }
        };
        loop {
            let have_seen = self.watched.iter().all(|seen| {
                let seen = seen.lock().unwrap();
                let end = |event: &Event| event.key.starts_with("lease/") && event.value.is_none();
                let ended = seen.messages.iter().flatten().filter(|event| end(event)).count();
                let put = |event: &Event| event.key.starts_with("lease/") && event.value.is_some();
                let begun = seen.messages.iter().flatten().filter(|event| put(event)).count();
                seen.newest() >= marker && ended == begun
            });
            if have_seen {
                break;
            }
            if Instant::now() > deadline {
                let newest: Vec<i64> =
                    self.watched.iter().map(|seen| seen.lock().unwrap().newest()).collect();
                return Err(format!("watchers are at {newest:?}, of {marker}, or leases have not ended"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.stop_watching.cancel();
        while self.watching.join_next().await.is_some() {}
        let watched = self.watched.into_iter().map(|seen| std::mem::take(&mut *seen.lock().unwrap()));
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        Ok(Recording { records: self.recorder.records(), watched: watched.collect(), kept })
    }

    /// Writes something at any member, and returns its revision.
    async fn mark(&mut self) -> Option<i64> {
        for member in 0..MEMBERS {
            let Some(channel) = self.channels.to(member) else { continue };
            let asked_at = self.recorder.now();
            let op = Op::Put { keys: vec!["end".to_owned()], value: format!("end.{asked_at}") };
            let kv = KvClient::new(channel);
            let answered = timeout(CLIENT_PATIENCE, send(kv, &op, 0)).await;
            let at = self.recorder.now();
            let told = answered.ok().and_then(Result::ok);
            let told = told.map(|(revision, answer)| Told { at, revision, answer });
            let revision = told.as_ref().map(|told| told.revision);
            self.recorder.push(Record { client: CLIENTS, member, op, asked_at, told });
            if revision.is_some() {
                return revision;
            }
        }
        sleep(Duration::from_millis(50)).await;
        None
    }
}

impl Recording {
    /// Compares everything with everything, and returns what there is at the end of it, with the revision.
    pub(crate) fn check(&self) -> Result<(Log, Summary), String> {
        for (number, seen) in self.watched.iter().enumerate() {
            if !seen.refusals.is_empty() {
                return Err(format!("watcher {number} was refused: {:?}", seen.refusals));
            }
        }
        // What comes later came of requests that nobody waited for.
        let upto = self.watched.iter().map(Seen::newest).min().unwrap_or(0);
        let mut logs = Vec::new();
        for (number, seen) in self.watched.iter().enumerate() {
            logs.push(log_of(&seen.messages, upto).map_err(|error| format!("watcher {number}: {error}"))?);
        }
        let log = logs.swap_remove(0);
        for (other, number) in logs.iter().zip([MEMBERS - 1, 1]) {
            if let Some(((_, one), (_, other))) = log.iter().zip(other).find(|(one, other)| one != other) {
                return Err(format!("watcher 0 was told {one:?}, and watcher {number} {other:?}"));
            }
        }
        check_reads(&self.records, &log)?;
        let histories = explain(&self.records, &log)?;
        let keys = histories.len();
        for (key, history) in histories {
            register::check(history).map_err(|error| format!("{key} is {error}"))?;
        }
        for kept in &self.kept {
            kept.check(self.first_seen_gone(&kept.key))?;
        }
        let summary = Summary {
            operations: self.records.len(),
            open: self.records.iter().filter(|record| record.told.is_none()).count(),
            keys,
            revisions: log.len(),
            streams: self.watched.iter().map(|seen| seen.streams).sum(),
            leases: self.kept.len(),
        };
        Ok((log, summary))
    }

    fn first_seen_gone(&self, key: &str) -> Option<Instant> {
        let gone =
            |message: &Vec<Event>| message.iter().any(|event| event.key == key && event.value.is_none());
        let seen = |seen: &'_ Seen| seen.messages.iter().position(gone).map(|place| seen.times[place]);
        self.watched.iter().filter_map(seen).min()
    }
}

//! One run: members, clients and faults together, and then the checks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use landbridge_kvstore_store::{KeyRange, LeaseId, RangeRequest, Store};
use tokio::time::sleep;

use crate::PATIENCE;
use crate::load::{Load, Summary};
use crate::members::Members;
use crate::order::{Event, Log, replay};
use crate::plan::{Kind, phases};

/// Runs faults of some kinds against a new cluster in this process.
///
/// # Errors
/// What was found.
pub(crate) async fn run(seed: u64, kinds: &[Kind]) -> Result<Summary, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut members = Members::start(dir.path()).await;
    let load = Load::start(seed, &members.addresses);
    let begin = Instant::now();
    for phase in phases(seed, kinds) {
        load.goes_on(phase.after).await.map_err(|error| format!("{error}: {}", members.describe()))?;
        println!("{:?}: {phase:?}, {}", begin.elapsed(), members.describe());
        members.strike(phase.fault).await;
        sleep(phase.lasts).await;
        members.mend().await;
        println!("{:?}: mended, {}", begin.elapsed(), members.describe());
    }
    let recording = load.finish().await.map_err(|error| format!("{error}: {}", members.describe()))?;
    println!("{:?}: through", begin.elapsed());
    let (log, summary) = recording.check()?;
    check_members(&members, &log).await?;
    members.shutdown().await;
    Ok(summary)
}

/// All members have what the events leave, and their histories are equal.
async fn check_members(members: &Members, log: &Log) -> Result<(), String> {
    let revision = *log.last_key_value().ok_or("nothing was ever written")?.0;
    let expected: BTreeMap<String, Event> = replay(log);
    let mut hashes = Vec::new();
    for engine in members.engines() {
        let deadline = Instant::now() + PATIENCE;
        while engine.read(Store::revision) < revision {
            if Instant::now() > deadline {
                return Err(format!("a member does not come to revision {revision}"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        let all = KeyRange::From(bytes::Bytes::from_static(b"\0"));
        let request = RangeRequest { revision, ..RangeRequest::new(all) };
        let found = engine.read(|store| store.range(&request)).map_err(|error| error.to_string())?;
        let found: BTreeMap<String, Event> = found
            .kvs
            .iter()
            .map(|kv| {
                let key = String::from_utf8_lossy(kv.key()).into_owned();
                let event = Event {
                    key: key.clone(),
                    value: Some(String::from_utf8_lossy(kv.value()).into_owned()),
                    revision: kv.mod_revision(),
                    created: kv.create_revision(),
                    version: kv.version(),
                    lease: kv.lease().map_or(0, LeaseId::get),
                };
                (key, event)
            })
            .collect();
        if found != expected {
            return Err(format!("a member has {found:?} at {revision}, and the events leave {expected:?}"));
        }
        hashes.push(engine.read(|store| store.hash_kv(revision)).map_err(|error| error.to_string())?);
    }
    if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("members differ in their history: {hashes:?}"));
    }
    Ok(())
}

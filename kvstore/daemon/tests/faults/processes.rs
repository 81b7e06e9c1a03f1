//! Three members as processes, and the signals that they get.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;
use crate::clients::{Addresses, Channels};
use crate::order::Event;
use crate::plan::{Fault, MEMBERS, Target, ends};
use crate::relay::{Cuts, Pids, Relay};

/// How long the leader is looked for.
const FIND_WITHIN: Duration = Duration::from_millis(300);

pub(crate) struct Processes {
    dir: TempDir,
    members: Vec<Member>,
    /// All members, as each of them is told.
    initial: String,
    pids: Pids,
    cuts: watch::Sender<Cuts>,
    pub(crate) addresses: Addresses,
}

struct Member {
    client: SocketAddr,
    /// Where it listens for the others, and where they reach it: by a relay.
    peer: SocketAddr,
    relay: SocketAddr,
    process: Option<Child>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            kill_process(Pid::from_child(process), signal).unwrap();
        }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Processes {
    pub(crate) fn start() -> Self {
        let (pids, cuts) = (Pids::default(), watch::Sender::default());
        *pids.lock().unwrap() = vec![None; MEMBERS];
        let member = |number| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let (peer, relay) = (free(), listener.local_addr().unwrap());
            let listener = listener.try_into().unwrap();
            Relay::spawn(listener, number, peer, Arc::clone(&pids), cuts.subscribe());
            Member { client: free(), peer, relay, process: None }
        };
        let members: Vec<Member> = (0..MEMBERS).map(member).collect();
        let initial: Vec<String> = members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("member-{number}=http://{}", member.relay))
            .collect();
        let addresses = Arc::new((0..MEMBERS).map(|_| Mutex::new(None)).collect());
        let dir = tempfile::tempdir().unwrap();
        let mut this = Self { dir, members, initial: initial.join(","), pids, cuts, addresses };
        this.mend();
        this
    }

    /// Everything is as it should be again.
    pub(crate) fn mend(&mut self) {
        self.cuts.send_replace(Cuts::new());
        for (number, member) in self.members.iter_mut().enumerate() {
            if member.process.is_some() {
                member.signal(Signal::CONT);
                continue;
            }
            let (client, peer) = (format!("http://{}", member.client), format!("http://{}", member.peer));
            let relay = format!("http://{}", member.relay);
            let log = self.dir.path().join(format!("log-{number}"));
            let log = File::options().create(true).append(true).open(log).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge-kvstore"));
            command
                .args(["--name", &format!("member-{number}"), "--data-dir"])
                .arg(self.dir.path().join(format!("data-{number}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &relay])
                .args(["--initial-cluster", &self.initial, "--initial-cluster-state", "new"])
                .args(["--election-timeout", "500", "--heartbeat-interval", "50", "--snapshot-count", "60"])
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            let process = command.spawn().unwrap();
            self.pids.lock().unwrap()[number] = Some(process.id());
            member.process = Some(process);
            *self.addresses[number].lock().unwrap() = Some(member.client);
        }
    }

    /// Clients do not ask a member for what it never gets.
    fn forget(&self, number: usize) {
        *self.addresses[number].lock().unwrap() = None;
    }

    /// `to` hears nothing of `from` any more.
    fn cut(&self, from: usize, to: usize) {
        self.cuts.send_if_modified(|cuts| cuts.insert((from, to)));
    }

    pub(crate) async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(target) => {
                let number = self.find(target).await;
                self.forget(number);
                self.members[number].kill();
            }
            Fault::KillAll => {
                (0..MEMBERS).for_each(|number| self.forget(number));
                self.members.iter_mut().for_each(Member::kill);
            }
            Fault::Pause(target) => {
                let number = self.find(target).await;
                self.members[number].signal(Signal::STOP);
            }
            Fault::Stop(target) => {
                let number = self.find(target).await;
                self.forget(number);
                self.members[number].signal(Signal::TERM);
                let ended = self.members[number].process.take().map(|mut process| process.wait());
                assert!(ended.unwrap().unwrap().success(), "member {number} did not end in order");
            }
            Fault::CutOff(target) | Fault::Mute(target) | Fault::Deaf(target) => {
                let one = self.find(target).await;
                for other in (0..MEMBERS).filter(|other| *other != one) {
                    if !matches!(fault, Fault::Deaf(_)) {
                        self.cut(one, other);
                    }
                    if !matches!(fault, Fault::Mute(_)) {
                        self.cut(other, one);
                    }
                }
            }
            Fault::Cable(cable) => {
                let (one, other) = ends(cable);
                self.cut(one, other);
                self.cut(other, one);
            }
            Fault::SlowDisk(..) | Fault::FullDisk(_) | Fault::ClockJump(..) | Fault::Replace(_) => {
                unreachable!("the machine of a process is this one")
            }
        }
    }

    /// Whom a fault hits: the first if nobody says that it leads.
    async fn find(&self, target: Target) -> usize {
        if let Target::Member(number) = target {
            return number;
        }
        let mut channels = Channels::new(&self.addresses);
        for number in 0..MEMBERS {
            let Some(channel) = channels.to(number) else { continue };
            let mut client = MaintenanceClient::new(channel);
            let status = timeout(FIND_WITHIN, client.status(pb::StatusRequest {})).await;
            let Ok(Ok(status)) = status else { continue };
            let status = status.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return number;
            }
        }
        0
    }

    /// What a member has at a revision.
    pub(crate) async fn keys(&self, member: usize, revision: i64) -> Result<BTreeMap<String, Event>, String> {
        let channel = Channels::new(&self.addresses).to(member).ok_or("it does not run")?;
        let all = Bytes::from_static(b"\0");
        let request = pb::RangeRequest { key: all.clone(), range_end: all, revision, ..Default::default() };
        let deadline = Instant::now() + PATIENCE;
        let response = loop {
            match KvClient::new(channel.clone()).range(request.clone()).await {
                Ok(response) => break response.into_inner(),
                Err(error) if Instant::now() > deadline => return Err(error.to_string()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let event = |kv: &landbridge_kvstore_server::grpc::KeyValueMessage| {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            let event = Event {
                key: key.clone(),
                value: Some(String::from_utf8_lossy(kv.value()).into_owned()),
                revision: kv.mod_revision(),
                created: kv.create_revision(),
                version: kv.version(),
                lease: kv.lease(),
            };
            (key, event)
        };
        Ok(response.kvs.iter().map(event).collect())
    }
}

//! Three members in this process, each in a runtime of its own: it can be ended or held up as a whole.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::engine::{
    ClusterOptions, ClusterState, Direction, Engine, EngineOptions, InitialMember, OpenError, PeerOptions,
};
use landbridge_kvstore_server::wal::{WalError, WalOptions};
use landbridge_kvstore_server::{
    Access, AccessRules, ListenAddress, ListenUrl, Server, ServerOptions, ServiceSettings, StartError,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::PATIENCE;
use crate::clients::Addresses;
use crate::machine::Machine;
use crate::plan::{Fault, MEMBERS, Target, ends};

/// How long a member waits for its leader.
pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) struct Members {
    all: Vec<Member>,
    /// Whose place is free, and who had it.
    removed: Option<(usize, u64)>,
    pub(crate) addresses: Addresses,
}

struct Member {
    options: EngineOptions,
    machine: Machine,
    running: Option<Running>,
}

struct Running {
    server: Option<Server>,
    /// There until it is ended.
    runtime: Option<Runtime>,
    /// While it is there, the runtime does nothing.
    hold: Option<mpsc::Sender<()>>,
}

/// Whatever it was about to do is not done.
impl Drop for Running {
    fn drop(&mut self) {
        self.hold = None;
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Running {
    fn pause(&mut self) {
        let (hold, held) = mpsc::channel::<()>();
        self.hold = Some(hold);
        // The only thread of the runtime waits for something that never comes, until the sender is gone.
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move { held.recv() });
        }
    }
}

impl Members {
    pub(crate) async fn start(dir: &Path) -> Self {
        let socket = |number: usize| dir.join(format!("peer-{number}"));
        let initial: Vec<InitialMember> = (0..MEMBERS)
            .map(|number| InitialMember {
                name: format!("member-{number}"),
                peer_urls: vec![format!("unix://{}", socket(number).display())],
            })
            .collect();
        let member = |number: usize| EngineOptions {
            name: initial[number].name.clone(),
            cluster: ClusterOptions {
                initial: initial.clone(),
                state: ClusterState::New,
                ..ClusterOptions::default()
            },
            peers: PeerOptions {
                listen: vec![ListenUrl { tls: false, address: ListenAddress::Unix(socket(number)) }],
                advertise: initial[number].peer_urls.clone(),
                tls: None,
            },
            // Small, so that a full disk is noticed soon.
            wal: WalOptions { segment_bytes: 16 << 10, spares: 1 },
            // Whoever was away for a while gets a snapshot.
            snapshot_entries: 60,
            election_timeout: ELECTION_TIMEOUT,
            heartbeat: Duration::from_millis(50),
            ..EngineOptions::new(dir.join(format!("data-{number}")))
        };
        let member = |number| Member { options: member(number), machine: Machine::default(), running: None };
        let all = (0..MEMBERS).map(member).collect();
        let addresses = Arc::new((0..MEMBERS).map(|_| Mutex::new(None)).collect());
        let mut this = Self { all, removed: None, addresses };
        this.start_missing().await;
        this
    }

    /// Starts all that do not run.
    async fn start_missing(&mut self) {
        let starts = self.all.iter_mut().zip(&*self.addresses).map(|(member, address)| async move {
            if member.running.is_none() {
                let running = start(member.options.clone(), &member.machine).await;
                *address.lock().unwrap() = running.server.as_ref().unwrap().local_addr();
                member.running = Some(running);
            }
        });
        futures_util::future::join_all(starts).await;
    }

    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.all.iter().filter_map(|member| Some(member.running.as_ref()?.server.as_ref()?.engine()))
    }

    fn engine(&self, number: usize) -> Option<&Engine> {
        Some(self.all[number].running.as_ref()?.server.as_ref()?.engine())
    }

    /// How far each member is, for whoever looks why nothing goes on.
    pub(crate) fn describe(&self) -> String {
        let describe = |engine: &Engine| {
            let status = engine.status();
            let role = if status.is_leader { "leads" } else { "follows" };
            let leader = status.leader.map(|leader| leader >> 48);
            format!(
                "{:x} {role} {leader:x?} in term {}, applied {}",
                status.member_id >> 48,
                status.term,
                status.applied_index
            )
        };
        self.engines().map(describe).collect::<Vec<_>>().join("; ")
    }

    fn find(&self, target: Target) -> usize {
        let leads = |number: &usize| self.engine(*number).is_some_and(|engine| engine.status().is_leader);
        match target {
            Target::Member(number) => number,
            Target::Leader => (0..MEMBERS).find(leads).unwrap_or(0),
        }
    }

    fn take(&mut self, number: usize) -> Option<Running> {
        *self.addresses[number].lock().unwrap() = None;
        self.all[number].running.take()
    }

    fn kill(&mut self, number: usize) {
        drop(self.take(number));
    }

    /// Takes what one member says to another out of the cable between them.
    fn cut(&self, from: usize, to: usize) {
        if let (Some(from), Some(to)) = (self.engine(from), self.engine(to)) {
            from.switch().cut(to.status().member_id, Direction::To);
            to.switch().cut(from.status().member_id, Direction::From);
        }
    }

    pub(crate) async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(target) => self.kill(self.find(target)),
            Fault::KillAll => (0..MEMBERS).for_each(|number| self.kill(number)),
            Fault::Stop(target) => {
                if let Some(mut running) = self.take(self.find(target)) {
                    let (server, runtime) =
                        (running.server.take().unwrap(), running.runtime.as_ref().unwrap());
                    runtime.spawn(server.shutdown()).await.unwrap().unwrap();
                }
            }
            Fault::Pause(target) => {
                let number = self.find(target);
                self.all[number].running.iter_mut().for_each(Running::pause);
            }
            Fault::CutOff(target) | Fault::Mute(target) | Fault::Deaf(target) => {
                let one = self.find(target);
                for other in (0..MEMBERS).filter(|other| *other != one) {
                    if !matches!(fault, Fault::Deaf(_)) {
                        self.cut(one, other);
                    }
                    if !matches!(fault, Fault::Mute(_)) {
                        self.cut(other, one);
                    }
                }
            }
            Fault::SlowDisk(target, takes) => self.all[self.find(target)].machine.set_sync(takes),
            Fault::FullDisk(target) => self.all[self.find(target)].machine.set_full(true),
            Fault::ClockJump(target, seconds) => self.all[self.find(target)].machine.jump(seconds),
            Fault::Replace(number) => self.remove(number).await,
            Fault::Cable(cable) => {
                let (one, other) = ends(cable);
                self.cut(one, other);
                self.cut(other, one);
            }
        }
    }

    /// Removes a member for good, and its data.
    async fn remove(&mut self, number: usize) {
        let (Some(engine), Some(by)) = (self.engine(number), self.engine((number + 1) % MEMBERS)) else {
            return;
        };
        let id = engine.status().member_id;
        let deadline = Instant::now() + PATIENCE;
        // It may have been done, and the answer lost.
        while let Err(error) = by.remove_member(id).await
            && by.members().iter().any(|member| member.id == id)
        {
            assert!(Instant::now() < deadline, "member {number} cannot be removed: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.kill(number);
        let member = &mut self.all[number];
        member.options.cluster.state = ClusterState::Existing;
        // Another folder: whoever writes the old one may not be through yet.
        member.options.data_dir.set_extension(format!("{id:x}"));
        self.removed = Some((number, id));
    }

    /// Adds a new member in the place of the one that was removed.
    async fn add(&mut self, number: usize, former: u64) {
        let by = self.engine((number + 1) % MEMBERS).unwrap();
        let urls = self.all[number].options.peers.advertise.clone();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = by.add_member(urls.clone(), false).await
            && !by.members().iter().any(|member| member.peer_urls == urls && member.id != former)
        {
            assert!(Instant::now() < deadline, "member {number} cannot be added: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything is as it should be again; clocks stay where they are.
    pub(crate) async fn mend(&mut self) {
        for running in self.all.iter_mut().filter_map(|member| member.running.as_mut()) {
            running.hold = None;
            running.server.iter().for_each(|server| server.engine().switch().mend());
        }
        for member in &self.all {
            member.machine.set_sync(Duration::ZERO);
            member.machine.set_full(false);
        }
        if let Some((number, former)) = self.removed.take() {
            self.add(number, former).await;
        }
        self.start_missing().await;
    }

    pub(crate) async fn shutdown(mut self) {
        for number in 0..MEMBERS {
            self.strike(Fault::Stop(Target::Member(number))).await;
        }
    }
}

async fn start(options: EngineOptions, machine: &Machine) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options = ServerOptions {
            engine: options.clone(),
            listen: vec![ListenUrl::http(([127, 0, 0, 1], 0).into())],
            listen_metrics: Vec::new(),
            advertise: Vec::new(),
            tls: None,
            access: Access::Rules(watch::channel(AccessRules::Open).1),
        };
        let starting = Server::start_on(options, ServiceSettings::default(), machine.platform());
        match runtime.spawn(starting).await.unwrap() {
            Ok(server) => return Running { server: Some(server), runtime: Some(runtime), hold: None },
            // The thread that writes the log of the one that was killed is not through yet.
            Err(StartError::Engine(OpenError::Wal(WalError::InUse { .. }))) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

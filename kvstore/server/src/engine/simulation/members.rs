//! The members of a simulated cluster, and what happens to them.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep};

use super::plan::{Fault, MEMBERS, Target};
use super::wires::Net;
use super::{QUICK, Simulated};
use crate::engine::{ClusterOptions, ClusterState, Engine, EngineOptions, InitialMember, PeerOptions};
use crate::platform::{Clock, Platform};
use crate::wal::disk::memory::{Loss, MemoryDisk};
use crate::wal::{Making, WalOptions};

/// A clock that jumps when it is told to.
#[derive(Debug, Default)]
pub(super) struct JumpingClock {
    ahead_seconds: AtomicI64,
}

impl Clock for JumpingClock {
    fn now(&self) -> std::time::Instant {
        // Far from the beginning of time, so that it can go back.
        let now = Instant::now().into_std() + Duration::from_hours(24);
        let ahead = self.ahead_seconds.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { now.checked_sub(by).unwrap() } else { now + by }
    }
}

/// The engines that run at the moment, for clients.
pub(super) type Running = Arc<Mutex<[Option<Engine>; MEMBERS]>>;

pub(super) struct Members {
    net: Net,
    dice: fastrand::Rng,
    all: Vec<Member>,
    /// Whose place is free, and who had it.
    removed: Option<(usize, u64)>,
    pub(super) running: Running,
}

struct Member {
    options: EngineOptions,
    disk: MemoryDisk,
    clock: Arc<JumpingClock>,
    simulated: Simulated,
}

/// Simulated time within which members come and go.
const CHANGES_WITHIN: Duration = Duration::from_secs(30);

fn name(number: usize) -> String {
    format!("member-{number}")
}

impl Members {
    pub(super) async fn start(seed: u64) -> Result<Self, String> {
        let net = Net::new(seed ^ 0x6e65_7477_6f72_6b73);
        let initial: Vec<InitialMember> = (0..MEMBERS)
            .map(|number| InitialMember {
                name: name(number),
                peer_urls: vec![format!("http://{}:2380", name(number))],
            })
            .collect();
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x006d_656d_6265_7273);
        let member = |number: usize| Member {
            options: EngineOptions {
                name: name(number),
                cluster: ClusterOptions {
                    initial: initial.clone(),
                    state: ClusterState::New,
                    ..ClusterOptions::default()
                },
                peers: PeerOptions {
                    listen: Vec::new(),
                    advertise: initial[number].peer_urls.clone(),
                    tls: None,
                },
                client_urls: vec![format!("http://{}:2379", name(number))],
                wal: WalOptions { segment_bytes: 8 << 10, spares: 1 },
                // Whoever was away for a while gets a snapshot.
                snapshot_entries: 40,
                heartbeat: Duration::from_millis(200),
                ..EngineOptions::new("/data")
            },
            disk: MemoryDisk::default(),
            clock: Arc::default(),
            simulated: Simulated::new(net.clone(), name(number), dice.u64(..)),
        };
        let all = (0..MEMBERS).map(member).collect();
        let mut this = Self { net, dice, all, removed: None, running: Arc::default() };
        this.start_missing().await?;
        Ok(this)
    }

    async fn start_missing(&mut self) -> Result<(), String> {
        let missing: Vec<usize> = (0..MEMBERS).filter(|number| self.engine(*number).is_none()).collect();
        let starts = missing.iter().map(|number| {
            let member = &self.all[*number];
            let platform = Platform {
                disk: Arc::new(member.disk.clone()),
                clock: Arc::<JumpingClock>::clone(&member.clock),
                making: Making::WhenNeeded,
                simulated: Some(member.simulated.clone()),
            };
            Engine::open_on(member.options.clone(), platform)
        });
        let started = futures_util::future::join_all(starts).await;
        for (number, engine) in missing.into_iter().zip(started) {
            let engine = engine.map_err(|error| {
                let known: Vec<_> =
                    (0..MEMBERS).filter_map(|other| Some(self.engine(other)?.members())).collect();
                format!("member {number} does not start: {error:?}: {self}, {known:?}")
            })?;
            self.running.lock().unwrap()[number] = Some(engine);
        }
        Ok(())
    }

    /// Every way between members is at least so long from now on.
    pub(super) fn set_delay(&self, shortest: Duration) {
        self.net.set_shortest(shortest);
    }

    pub(super) fn engine(&self, number: usize) -> Option<Engine> {
        self.running.lock().unwrap()[number].clone()
    }

    fn find(&self, target: Target) -> usize {
        match target {
            Target::Member(number) => number,
            Target::Leader => {
                let leads = |number: &usize| self.engine(*number).is_some_and(|engine| engine.leads());
                (0..MEMBERS)
                    .filter(leads)
                    .max_by_key(|number| self.engine(*number).map(|engine| engine.term()))
                    .unwrap_or(0)
            }
        }
    }

    /// Ends a member without a word.
    fn end(&mut self, number: usize, loss: Option<Loss>) {
        let Some(engine) = self.running.lock().unwrap()[number].take() else { return };
        let member = &mut self.all[number];
        let left = match loss {
            Some(loss) => member.disk.after_crash(loss),
            None => member.disk.after_kill(),
        };
        // Whatever the engine was about to do is not done.
        member.disk.power_off();
        member.disk = left;
        self.net.remove(&name(number), loss.is_some());
        engine.0.stop.cancel();
    }

    fn loss(&mut self) -> Loss {
        if self.dice.bool() { Loss::Whole } else { Loss::Part(self.dice.u64(..)) }
    }

    pub(super) async fn strike(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill(target) => self.end(self.find(target), None),
            Fault::PowerLoss(target) => {
                let loss = self.loss();
                self.end(self.find(target), Some(loss));
            }
            Fault::PowerLossOfAll => {
                for number in 0..MEMBERS {
                    let loss = self.loss();
                    self.end(number, Some(loss));
                }
            }
            Fault::Stop(target) => {
                let number = self.find(target);
                let engine = self.running.lock().unwrap()[number].take();
                if let Some(engine) = engine {
                    engine.shutdown().await.map_err(|error| error.to_string())?;
                    self.net.remove(&name(number), false);
                }
            }
            Fault::CutOff(target) | Fault::Mute(target) | Fault::Deaf(target) => {
                let one = self.find(target);
                for other in (0..MEMBERS).filter(|other| *other != one) {
                    if !matches!(fault, Fault::Deaf(_)) {
                        self.net.cut(&name(one), &name(other));
                    }
                    if !matches!(fault, Fault::Mute(_)) {
                        self.net.cut(&name(other), &name(one));
                    }
                }
            }
            Fault::Cable(cable) => {
                let (one, other) = (name(cable), name((cable + 1) % MEMBERS));
                self.net.cut(&one, &other);
                self.net.cut(&other, &one);
            }
            Fault::SlowDisk(target, longest) => self.all[self.find(target)].simulated.set_disk(longest),
            Fault::ClockJump(target, seconds) => {
                let clock = &self.all[self.find(target)].clock;
                clock.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
            }
            Fault::Replace(number) => return self.remove(number).await,
            Fault::MoveLeader(to) => {
                let from = self.find(Target::Leader);
                if let (Some(from), Some(to)) = (self.engine(from), self.engine(to)) {
                    // It may be refused: the other one may be far behind.
                    let _ = from.move_leader(to.0.identity.member_id).await;
                }
            }
        }
        Ok(())
    }

    /// Removes a member for good: its machine is gone with its disk.
    async fn remove(&mut self, number: usize) -> Result<(), String> {
        let Some(engine) = self.engine(number) else { return Ok(()) };
        let id = engine.0.identity.member_id;
        let by = self.engine((number + 1) % MEMBERS).ok_or("the member that is asked is down")?;
        let deadline = Instant::now() + CHANGES_WITHIN;
        // It may have been done, and the answer lost.
        while by.remove_member(id).await.is_err() && by.members().iter().any(|member| member.id == id) {
            if Instant::now() > deadline {
                return Err(format!("member {number} cannot be removed: {self}"));
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.running.lock().unwrap()[number] = None;
        engine.0.stop.cancel();
        self.net.remove(&name(number), true);
        let member = &mut self.all[number];
        member.disk.power_off();
        member.disk = MemoryDisk::default();
        member.options.cluster.state = ClusterState::Existing;
        self.removed = Some((number, id));
        Ok(())
    }

    /// Adds a new member in the place of the one that was removed.
    async fn add(&mut self, number: usize, former: u64) -> Result<(), String> {
        let by = self.engine((number + 1) % MEMBERS).ok_or("the member that is asked is down")?;
        let urls = self.all[number].options.peers.advertise.clone();
        let deadline = Instant::now() + CHANGES_WITHIN;
        while by.add_member(urls.clone(), false).await.is_err()
            && !by.members().iter().any(|member| member.peer_urls == urls && member.id != former)
        {
            if Instant::now() > deadline {
                return Err(format!("member {number} cannot be added: {self}"));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Everything is as it should be again; clocks stay where they are.
    pub(super) async fn mend(&mut self) -> Result<(), String> {
        self.net.mend();
        for member in &self.all {
            member.simulated.set_disk(QUICK);
        }
        if let Some((number, former)) = self.removed.take() {
            self.add(number, former).await?;
        }
        self.start_missing().await
    }

    /// Whether all have applied equally much, and their engines.
    pub(super) fn are_equally_far(&self) -> Option<Vec<Engine>> {
        let engines: Vec<Engine> = (0..MEMBERS).filter_map(|number| self.engine(number)).collect();
        let mut applied = engines.iter().map(|engine| *engine.0.shared.applied.borrow());
        let first = applied.next()?;
        (engines.len() == MEMBERS && applied.all(|applied| applied == first)).then_some(engines)
    }
}

impl fmt::Display for Members {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for number in 0..MEMBERS {
            let Some(engine) = self.engine(number) else {
                write!(formatter, "[{number} is down]")?;
                continue;
            };
            let metrics = engine.0.raft.metrics();
            let metrics = metrics.borrow_watched().clone();
            let leader = metrics.current_leader.map(|leader| leader >> 48);
            write!(
                formatter,
                "[{number} {:x}: {:?} of {leader:x?} in term {}, log {:?}, applied {:?}]",
                engine.0.identity.member_id >> 48,
                metrics.state,
                metrics.current_term,
                metrics.last_log_index,
                metrics.last_applied.map(|last| last.index),
            )?;
        }
        Ok(())
    }
}

//! Stores that etcdctl is run against: ours or etcd, one member or several.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::command::{Etcdctl, Line};
use super::normal::normal;
use crate::program::{Running, free_url, store};

/// How long members may take to agree on a leader.
const ELECTED_WITHIN: Duration = Duration::from_secs(30);

/// Which program.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Ours,
    Etcd(PathBuf),
}

impl Program {
    fn command(&self) -> Command {
        match self {
            Self::Ours => store(&[]),
            Self::Etcd(path) => {
                let mut command = Command::new(path);
                command.stdin(Stdio::null()).stdout(Stdio::null());
                command
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Etcd(_) => "etcd",
        }
    }
}

/// The members of a cluster.
pub(crate) struct Stores {
    is_ours: bool,
    members: Vec<Member>,
    /// Where `snapshot save` writes to.
    saved: PathBuf,
}

struct Member {
    url: String,
    peer: String,
    running: Running,
}

impl Stores {
    /// Starts so many members at once, and waits until all say that they are ready.
    pub(crate) fn start(program: &Program, size: usize, dir: &Path, more: &[&str]) -> Self {
        let urls: Vec<(String, String)> = (0..size).map(|_| (free_url(), free_url())).collect();
        let initial: Vec<String> =
            urls.iter().enumerate().map(|(number, (_, peer))| format!("m{number}={peer}")).collect();
        let initial = initial.join(",");
        let start = |number: usize| {
            let (url, peer) = urls[number].clone();
            let (name, data) = (format!("m{number}"), dir.join(format!("{}-{number}", program.name())));
            let args =
                ["--name", &name, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &initial];
            let args = [&args[..], &["--bcrypt-cost", "4"], more].concat();
            let running = Running::start_program(program.command(), &data, &url, &peer, &args);
            Member { url, peer, running }
        };
        let members = thread::scope(|scope| {
            let starting: Vec<_> = (0..size).map(|number| scope.spawn(move || start(number))).collect();
            starting.into_iter().map(|member| member.join().unwrap()).collect()
        });
        Self {
            is_ours: matches!(program, Program::Ours),
            members,
            saved: dir.join(format!("{}.saved", program.name())),
        }
    }

    /// All endpoints, as etcdctl takes them.
    pub(crate) fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Waits until each member knows of each where clients reach it, which a follower may apply later than others.
    fn wait_until_known(&self, etcdctl: &Etcdctl) {
        for member in &self.members {
            let deadline = Instant::now() + ELECTED_WITHIN;
            loop {
                let said = etcdctl.run(&member.url, &Line::parse("member list"));
                if self.members.iter().all(|member| said.contains(&member.url)) {
                    break;
                }
                assert!(Instant::now() < deadline, "{} does not know all members: {said}", member.url);
            }
        }
    }

    /// The IDs of the members, and of the one that leads, as soon as all of them know it.
    fn ids(&self, etcdctl: &Etcdctl) -> (Vec<String>, String) {
        let deadline = Instant::now() + ELECTED_WITHIN;
        loop {
            let said = etcdctl.run(&self.endpoints(), &Line::parse("endpoint status -w json"));
            let all: Value =
                said.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
            let statuses: Vec<&Value> =
                all.as_array().into_iter().flatten().map(|one| &one["Status"]).collect();
            let number = |value: &Value| value.as_u64().map(|number| format!("{number:x}"));
            let ids: Option<Vec<String>> =
                statuses.iter().map(|status| number(&status["header"]["member_id"])).collect();
            // What is 0 is left out.
            let leaders: Option<BTreeSet<String>> =
                statuses.iter().map(|status| number(&status["leader"])).collect();
            if let (Some(ids), Some(mut leaders)) = (ids, leaders)
                && ids.len() == self.members.len()
                && leaders.len() == 1
            {
                return (ids, leaders.pop_first().unwrap());
            }
            assert!(Instant::now() < deadline, "the members agree on no leader: {said}");
        }
    }

    /// What etcdctl says, for each line of the script.
    pub(crate) fn said(&self, etcdctl: &Etcdctl, script: &str) -> Vec<String> {
        let saved = self.saved.display().to_string();
        let mut places = vec![("FILE".to_owned(), saved.clone())];
        let mut ours = vec![(saved, "FILE".to_owned())];
        for (number, member) in self.members.iter().enumerate() {
            places.push((format!("URL{number}"), member.url.clone()));
            ours.push((member.url.clone(), format!("URL{number}")));
            places.push((format!("PEER{number}"), member.peer.clone()));
            ours.push((member.peer.clone(), format!("PEER{number}")));
        }
        let is_cluster = self.members.len() > 1;
        if is_cluster {
            self.wait_until_known(etcdctl);
            let (ids, leader) = self.ids(etcdctl);
            if ids[0] != leader {
                etcdctl.run(&self.endpoints(), &Line::parse(&format!("move-leader {}", ids[0])));
            }
            places.extend(ids.into_iter().enumerate().map(|(number, id)| (format!("ID{number}"), id)));
        }
        let fill = |line: &str, places: &[(String, String)]| {
            places.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value))
        };
        let (mut lease, mut member) = (String::new(), String::new());
        let mut all = Vec::new();
        for line in commands(script) {
            let line = fill(line, &places).replace("LEASE", &lease).replace("MEMBER", &member);
            let text = etcdctl.run(&self.endpoints(), &Line::parse(&line));
            let second = |begin: &str| {
                text.lines().find_map(|line| line.strip_prefix(begin)?.split_whitespace().next())
            };
            if let Some(granted) = second("lease ").filter(|_| text.contains(" granted ")) {
                granted.clone_into(&mut lease);
            }
            if let Some(added) = second("Member ").filter(|_| text.contains(" added ")) {
                added.clone_into(&mut member);
            }
            let mut text = normal(&fill(&text, &ours));
            // Members come in the order of their IDs.
            if is_cluster || line.starts_with("member list") {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                text = lines.join("\n");
            }
            all.push(text);
        }
        all
    }

    /// Ends all members in order.
    pub(crate) fn stop(self) {
        for mut member in self.members {
            let ended = member.running.terminate();
            // etcd ends by the signal that it was sent, once it is done.
            assert_eq!(ended.code(), self.is_ours.then_some(0), "{ended}");
        }
    }
}

/// The lines of a script that are no comments.
pub(crate) fn commands(script: &str) -> impl Iterator<Item = &str> {
    script.lines().filter(|line| !line.starts_with('#'))
}

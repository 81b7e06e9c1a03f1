//! A server under load: ours or etcd, started alike.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;
use tokio::time::sleep;

/// How long a server may take to be there.
const START_WITHIN: Duration = Duration::from_mins(2);
/// Ticks of a second in /proc, on every Linux of today.
const TICKS: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Ours,
    Etcd,
}

/// One of the two that are compared.
#[derive(Debug)]
pub(super) struct Contender {
    which: Which,
    binary: PathBuf,
    dir: PathBuf,
}

/// One or more members that run, with their folders.
#[derive(Debug)]
pub(super) struct Cluster {
    members: Vec<Member>,
    /// Goes with them.
    _dir: TempDir,
}

#[derive(Debug)]
pub(super) struct Member {
    process: Child,
    command: Command,
    endpoint: String,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.which {
            Which::Ours => "ours",
            Which::Etcd => "etcd",
        })
    }
}

impl Contender {
    pub(super) fn new(which: Which, binary: Option<PathBuf>, dir: PathBuf) -> Result<Self> {
        let binary = match (binary, which) {
            (Some(binary), _) => binary,
            (None, Which::Ours) => {
                let own = std::env::current_exe().context("cannot find the build")?;
                own.with_file_name("landbridge-kvstore")
            }
            (None, Which::Etcd) => landbridge_lab::requirement::etcd()
                .context("there is no etcd to compare with: run `cargo xtask setup --peers`")?,
        };
        ensure!(
            binary.is_file(),
            "{} is not there: run `cargo build --release -p landbridge-kvstore`",
            binary.display()
        );
        Ok(Self { which, binary, dir })
    }

    pub(super) fn version(&self) -> Result<String> {
        let output = Command::new(&self.binary).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", self.binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or("unknown").replace(" Version:", ""))
    }

    /// Starts a new cluster of so many members.
    pub(super) async fn start(&self, members: usize) -> Result<Cluster> {
        let dir = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&self.dir)
            .context("cannot make a folder")?;
        // Held until they start, since a port that the kernel chose cannot be told otherwise.
        let hold = || TcpListener::bind("127.0.0.1:0").context("no port is free");
        let held: Vec<_> = (0..members).map(|_| Ok((hold()?, hold()?))).collect::<Result<_>>()?;
        let url = |of: &TcpListener| Ok::<_, anyhow::Error>(format!("http://{}", of.local_addr()?));
        let urls: Vec<(String, String)> =
            held.iter().map(|(client, peer)| Ok((url(client)?, url(peer)?))).collect::<Result<_>>()?;
        drop(held);
        let all: Vec<String> = urls.iter().enumerate().map(|(n, (_, peer))| format!("m{n}={peer}")).collect();
        let mut started = Vec::new();
        for (number, (client, peer)) in urls.iter().enumerate() {
            let mut command = Command::new(&self.binary);
            command.arg("--data-dir").arg(dir.path().join(format!("m{number}")));
            command.args(["--name", &format!("m{number}"), "--log-level", "error"]);
            command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
            command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
            command.args(["--initial-cluster", &all.join(","), "--quota-backend-bytes", "8589934592"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
            let process =
                command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
            started.push(Member { process, command, endpoint: client.clone() });
        }
        let mut cluster = Cluster { members: started, _dir: dir };
        cluster.ready().await?;
        Ok(cluster)
    }
}

impl Cluster {
    pub(super) fn endpoint(&self) -> &str {
        &self.members[0].endpoint
    }

    /// Waits until each member answers a linearizable read.
    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        for member in &mut self.members {
            loop {
                if let Some(status) = member.process.try_wait()? {
                    bail!("it ended by itself: {status}");
                }
                match answers(&member.endpoint).await {
                    Ok(()) => break,
                    Err(error) if Instant::now() > deadline => {
                        return Err(error.context("it does not answer"));
                    }
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        }
        Ok(())
    }

    /// So many connections to the first member.
    pub(super) async fn connect(&self, connections: usize) -> Result<Vec<Client>> {
        self.connect_with(connections, None).await
    }

    pub(super) async fn connect_with(
        &self,
        connections: usize,
        options: Option<ConnectOptions>,
    ) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections {
            clients
                .push(Client::connect([self.endpoint()], options.clone()).await.context("cannot connect")?);
        }
        Ok(clients)
    }

    /// CPU time that all members have used so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.members.iter().map(|member| cpu_seconds(member.process.id())).sum()
    }

    /// Memory of the first member that is in use now, in MiB.
    pub(super) fn memory_mib(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.members[0].process.id());
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| path.clone())?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context(path)?;
        Ok(kib / 1024.0)
    }

    /// Ends all members and starts them again on their data. Returns how long they take until they answer.
    pub(super) async fn restart(&mut self) -> Result<Duration> {
        for member in &mut self.members {
            terminate(&mut member.process)?;
        }
        let start = Instant::now();
        for member in &mut self.members {
            member.process = member.command.spawn().context("cannot start it again")?;
        }
        self.ready().await?;
        Ok(start.elapsed())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may have ended by itself.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

async fn answers(endpoint: &str) -> Result<()> {
    let options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
    let mut client = Client::connect([endpoint], Some(options)).await?;
    client.get("ready", None).await?;
    Ok(())
}

fn terminate(process: &mut Child) -> Result<()> {
    let status = Command::new("kill").arg(process.id().to_string()).status().context("cannot run kill")?;
    ensure!(status.success(), "kill failed: {status}");
    process.wait().context("it cannot be waited for")?;
    Ok(())
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name, in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(')').with_context(|| path.clone())?;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "{path} has no times");
    Ok((ticks[0] + ticks[1]) / TICKS)
}

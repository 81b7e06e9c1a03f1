//! How long a lab takes to stand, beside the same hosts and cables made with ip(8), the way shell scripts do.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landbridge_lab::{Lab, LabName, LabSpec};

use crate::report::{Goal, Report, Row};

/// Start two clusters of two nodes of two pods
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each of the two is measured, in turn; the table has the medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
}

impl Args {
    pub(crate) fn measure(self) -> Result<Report> {
        let mut ours = Vec::new();
        let mut peer = Vec::new();
        for _ in 0..self.repeats {
            ours.push(start_lab()?);
            peer.push(start_script());
        }
        let peer = peer.into_iter().collect::<Result<Vec<_>>>();
        if let Err(error) = &peer {
            eprintln!("the peer was not measured: {error:#}");
        }
        let figures = (Some(median(ours)), peer.ok().map(median));
        Ok(Report {
            bench: "lab",
            peer: ip_version()?,
            command: format!("cargo xtask bench lab --repeats {}", self.repeats),
            rows: vec![Row::new("start of 2 clusters x 2 nodes x 2 pods", "s", figures, Goal::AtMost(2.0))],
        })
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn start_lab() -> Result<Duration> {
    let spec = LabSpec::new(LabName::unique("bench")?);
    let start = Instant::now();
    let lab = Lab::start(spec)?;
    let time = start.elapsed();
    lab.remove()?;
    Ok(time)
}

/// Makes the same hosts, cables, addresses, routes and settings, one ip(8) after the other.
///
/// The script has mounts of its own, so that its namespaces end with it, however it ends.
fn start_script() -> Result<Duration> {
    let script = format!("mount -t tmpfs none /run/netns\n{}", script("script"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script]).stdin(Stdio::null());
    let start = Instant::now();
    let status = command.status().context("cannot run unshare")?;
    let time = start.elapsed();
    ensure!(status.success(), "the ip(8) script failed: {status}");
    Ok(time)
}

fn script(prefix: &str) -> String {
    let wan = format!("{prefix}.wan");
    let mut lines = vec![format!("ip netns add {wan}"), forwarding(&wan)];
    for (number, cluster) in [(1, "a"), (2, "b")] {
        let switch = format!("{prefix}.{cluster}");
        lines.push(format!("ip netns add {switch}"));
        lines.push(format!("ip -n {switch} link add br0 type bridge"));
        lines.push(format!("ip -n {switch} link set dev br0 up"));
        lines.extend(cable(&switch, "wan", &format!("{prefix}.wan"), cluster));
        lines.push(format!("ip -n {switch} link set dev wan master br0"));
        lines.extend(addresses(
            &format!("{prefix}.wan"),
            cluster,
            &format!("172.30.{number}.254/24"),
            &format!("fd30:{number}::fe/64"),
        ));
        for node in 1..=2 {
            let host = format!("{prefix}.{cluster}{node}");
            let port = format!("{cluster}{node}");
            lines.push(format!("ip netns add {host}"));
            lines.push(forwarding(&host));
            lines.extend(cable(&switch, &port, &host, "eth0"));
            lines.push(format!("ip -n {switch} link set dev {port} master br0"));
            lines.extend(addresses(
                &host,
                "eth0",
                &format!("172.30.{number}.{node}/24"),
                &format!("fd30:{number}::{node}/64"),
            ));
            lines.extend(default_routes(
                &host,
                &format!("172.30.{number}.254"),
                &format!("fd30:{number}::fe"),
            ));
            let other = 3 - node;
            for (from, to, via) in [(&wan, node, node), (&host, other, other)] {
                lines.push(format!("ip -n {from} route add 10.{number}.{to}.0/24 via 172.30.{number}.{via}"));
                lines
                    .push(format!("ip -n {from} route add fd10:{number}:{to}::/64 via fd30:{number}::{via}"));
            }
            for pod in 1..=2 {
                let pod_host = format!("{host}p{pod}");
                let port = format!("lxc{pod}");
                let (v4, v6) = (format!("10.{number}.{node}"), format!("fd10:{number}:{node}:"));
                lines.push(format!("ip netns add {pod_host}"));
                lines.extend(cable(&host, &port, &pod_host, "eth0"));
                lines.extend(addresses(&host, &port, &format!("{v4}.1/32"), &format!("{v6}:1/128")));
                lines.extend(addresses(
                    &pod_host,
                    "eth0",
                    &format!("{v4}.{}/32", 9 + pod),
                    &format!("{v6}:{}/128", 9 + pod),
                ));
                lines.push(format!("ip -n {host} route add {v4}.{}/32 dev {port}", 9 + pod));
                lines.push(format!("ip -n {host} route add {v6}:{}/128 dev {port}", 9 + pod));
                lines.push(format!("ip -n {pod_host} route add {v4}.1/32 dev eth0"));
                lines.push(format!("ip -n {pod_host} route add {v6}:1/128 dev eth0"));
                lines.extend(default_routes(&pod_host, &format!("{v4}.1"), &format!("{v6}:1")));
            }
        }
    }
    lines.join("\n")
}

fn forwarding(host: &str) -> String {
    format!("ip netns exec {host} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
}

fn cable(host: &str, interface: &str, peer_host: &str, peer: &str) -> [String; 3] {
    [
        format!("ip -n {host} link add {interface} type veth peer name {peer} netns {peer_host}"),
        format!("ip -n {host} link set dev {interface} up"),
        format!("ip -n {peer_host} link set dev {peer} up"),
    ]
}

fn addresses(host: &str, interface: &str, v4: &str, v6: &str) -> [String; 2] {
    [
        format!("ip -n {host} address add {v4} dev {interface}"),
        format!("ip -n {host} address add {v6} dev {interface} nodad"),
    ]
}

fn default_routes(host: &str, v4: &str, v6: &str) -> [String; 2] {
    [format!("ip -n {host} route add default via {v4}"), format!("ip -n {host} route add default via {v6}")]
}

fn ip_version() -> Result<String> {
    let output = Command::new("ip").arg("-V").output().context("cannot run ip: run `cargo xtask setup`")?;
    Ok(format!("a script of ip(8), {}", String::from_utf8_lossy(&output.stdout).trim()))
}

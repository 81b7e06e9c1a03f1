//! Asks whether a host reaches an address, with the ping of iputils.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::LabError;
use crate::host::Host;

/// How long ping waits for the last answer, in seconds.
const LAST_ANSWER_SECONDS: &str = "2";

/// What ping says at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PingSummary {
    /// Echo requests.
    pub sent: u64,
    /// Requests that were answered.
    pub received: u64,
    /// Answers that came a second time. One to the last request may be missing, since the first ends ping.
    pub duplicates: u64,
    /// Shortest round trip; `None` if nothing came back.
    pub shortest: Option<Duration>,
}

impl Host {
    /// Sends `count` echo requests to `target`, one every `interval`, and waits up to 2 s for the last answer.
    ///
    /// # Errors
    /// [`LabError::Io`] if ping cannot be run, [`LabError::Ping`] if it sends nothing.
    pub fn ping(&self, target: IpAddr, count: u32, interval: Duration) -> Result<PingSummary, LabError> {
        let interval = format!("{:.3}", interval.as_secs_f64());
        let (count, target) = (count.to_string(), target.to_string());
        let args = ["-n", "-q", "-W", LAST_ANSWER_SECONDS, "-c", &count, "-i", &interval, &target];
        let output = self.run("ping", args)?;
        parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| LabError::Ping {
            host: self.name().to_owned(),
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Whether one of three echo requests is answered. The first may be lost to neighbour discovery.
    ///
    /// # Errors
    /// As [`Self::ping`].
    pub fn reaches(&self, target: IpAddr) -> Result<bool, LabError> {
        Ok(self.ping(target, 3, Duration::from_millis(200))?.received > 0)
    }
}

fn parse(text: &str) -> Option<PingSummary> {
    let counts = text.lines().find(|line| line.contains("packets transmitted"))?;
    let count = |what: &str| -> Option<u64> {
        let field = counts.split(", ").find(|field| field.contains(what))?;
        field.trim_start_matches('+').split(' ').next()?.parse().ok()
    };
    let times = text.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let shortest = times.and_then(|times| times.split('/').next()?.parse::<f64>().ok());
    Some(PingSummary {
        sent: count("transmitted")?,
        received: count("received")?,
        duplicates: count("duplicates").unwrap_or(0),
        shortest: shortest.map(|milliseconds| Duration::from_secs_f64(milliseconds / 1_000.0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read() {
        let text = "PING 10.2.1.10 (10.2.1.10) 56(84) bytes of data.\n\n--- 10.2.1.10 ping statistics ---\n\
            20 packets transmitted, 18 received, +17 duplicates, 10% packet loss, time 190ms\n\
            rtt min/avg/max/mdev = 50.073/50.080/50.093/0.008 ms\n";
        let shortest = Some(Duration::from_micros(50_073));
        assert_eq!(parse(text), Some(PingSummary { sent: 20, received: 18, duplicates: 17, shortest }));
    }

    #[test]
    fn silence_has_no_round_trip() {
        let text = "\n--- 10.2.1.10 ping statistics ---\n3 packets transmitted, 0 received, 100% packet loss, time 2ms\n\n";
        assert_eq!(parse(text), Some(PingSummary { sent: 3, received: 0, duplicates: 0, shortest: None }));
        assert_eq!(parse(""), None);
    }
}

//! What the kernel says of this process.

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

/// The process, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Time on processors, since it began.
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_files: u64,
    /// When it began, in seconds since 1970.
    pub(super) start_seconds: f64,
}

impl Process {
    /// Looks; what the kernel does not tell is zero.
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let boot = read("/proc/stat");
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        let mut process = Self::parse(&read("/proc/self/stat"), clock_ticks_per_second(), page_size() as u64);
        process.start_seconds += boot.unwrap_or(0.0);
        process.open_files = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        process
    }

    /// Reads `/proc/<pid>/stat` (proc(5)); `start_seconds` is since the machine booted then.
    fn parse(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Self {
        // The name of the program is in parentheses, and may hold anything.
        let fields: Vec<u64> = match stat.rsplit_once(')') {
            Some((_, rest)) => rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect(),
            None => Vec::new(),
        };
        // Counted from 1 in the manual; the first one here is the third.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let seconds =
            |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second.max(1));
        Self {
            cpu: seconds(field(14)) + seconds(field(15)),
            resident_bytes: field(24).saturating_mul(page_bytes),
            virtual_bytes: field(23),
            open_files: 0,
            start_seconds: seconds(field(22)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_what_it_likes() {
        let stat = "7 (a) b 9 (c)) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 4 0 1200 4096 3 99";
        let process = Process::parse(stat, 100, 4096);
        assert_eq!((process.cpu, process.resident_bytes), (Duration::from_secs(2), 3 * 4096));
        assert!((process.start_seconds - 12.0).abs() < 0.01 && process.virtual_bytes == 4096);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::look();
        assert!(process.resident_bytes > 0 && process.open_files > 0 && process.start_seconds > 1e9);
        assert_eq!(Process::parse("nonsense", 0, 0), Process::default());
    }
}

//! How each check ended.

use std::time::{Duration, Instant};

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// With the command to run again.
    Failed(String),
    /// With the reason.
    Skipped(String),
}

/// The checks so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<(&'static str, Outcome, Duration)>,
}

impl Report {
    /// Runs a check and keeps how it ended.
    pub(crate) fn record(&mut self, name: &'static str, check: impl FnOnce() -> Outcome) {
        let start = Instant::now();
        let outcome = check();
        self.checks.push((name, outcome, start.elapsed()));
    }

    pub(crate) fn any_failed(&self) -> bool {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_))) > 0
    }

    /// One line for each check, then one with the sums.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width = self.checks.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let line = |(name, outcome, took): &(&'static str, Outcome, Duration)| {
            let outcome = match outcome {
                Outcome::Ok => format!("ok ({:.1} s)", took.as_secs_f64()),
                Outcome::Failed(what) => format!("failed: {what}"),
                Outcome::Skipped(reason) => format!("skipped: {reason}"),
            };
            format!("check: {name:width$}  {outcome}")
        };
        let sums = format!(
            "check: {} ok, {} failed, {} skipped",
            self.count(|outcome| *outcome == Outcome::Ok),
            self.count(|outcome| matches!(outcome, Outcome::Failed(_))),
            self.count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        );
        self.checks.iter().map(line).chain([sums]).collect()
    }

    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.checks.iter().filter(|(_, outcome, _)| wanted(outcome)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_line_and_one_failure_is_enough() {
        let mut report = Report::default();
        report.record("format", || Outcome::Ok);
        report.record("advisories", || Outcome::Skipped("no network".into()));
        assert!(!report.any_failed());
        report.record("lints", || Outcome::Failed("`cargo clippy`".into()));
        assert!(report.any_failed());

        let lines = report.lines();
        assert!(lines[0].starts_with("check: format      ok ("), "{lines:?}");
        assert_eq!(lines[1], "check: advisories  skipped: no network");
        assert_eq!(lines[2], "check: lints       failed: `cargo clippy`");
        assert_eq!(lines[3], "check: 1 ok, 1 failed, 1 skipped");
    }
}

//! Decides whether a test run was good, and what to say at its end.

use super::{counts::Counts, skip_log::Skip};

/// What these tests need is there in CI, so a skip means that the set-up is broken.
const NEVER_SKIPPED_IN_CI: [&str; 3] = ["ebpf", "namespaces", "etcd"];

/// All that is known after a run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// As the runners count: a test that could not run is among the passed.
    pub(crate) counts: Counts,
    pub(crate) skips: Vec<Skip>,
    /// Whatever keeps the counts from being the whole truth.
    pub(crate) problems: Vec<String>,
    pub(crate) in_ci: bool,
}

/// What to print, and the outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The last one is `N passed, N failed, N skipped`.
    pub(crate) lines: Vec<String>,
    pub(crate) ok: bool,
}

impl Run {
    pub(crate) fn verdict(&self) -> Verdict {
        let Counts { passed, failed, ignored } = self.counts;
        let mut lines: Vec<String> = self
            .skips
            .iter()
            .map(|skip| format!("skipped {} ({}): {}", skip.test, skip.group, skip.reason))
            .collect();
        if ignored > 0 {
            lines.push(format!("skipped {ignored} more: marked #[ignore]"));
        }
        let errors: Vec<String> = self.problems.iter().cloned().chain(self.refused_by_ci()).collect();
        lines.extend(errors.iter().map(|error| format!("error: {error}")));
        let ran = passed.saturating_sub(self.skips.len());
        lines.push(format!("{ran} passed, {failed} failed, {} skipped", self.skips.len() + ignored));
        Verdict { lines, ok: failed == 0 && errors.is_empty() }
    }

    fn refused_by_ci(&self) -> Vec<String> {
        if !self.in_ci {
            return Vec::new();
        }
        let mut refused = Vec::new();
        for group in NEVER_SKIPPED_IN_CI {
            let tests: Vec<&str> =
                self.skips.iter().filter(|skip| skip.group == group).map(|skip| skip.test.as_str()).collect();
            if !tests.is_empty() {
                refused
                    .push(format!("tests of group {group} may not be skipped in CI: {}", tests.join(", ")));
            }
        }
        if self.counts.passed + self.counts.failed == 0 {
            refused.push("no test ran, which in CI is a failure".to_owned());
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(group: &str, test: &str) -> Skip {
        Skip { group: group.into(), test: test.into(), reason: "not here".into() }
    }

    fn run(passed: usize, failed: usize, skips: Vec<Skip>) -> Run {
        Run { counts: Counts { passed, failed, ignored: 0 }, skips, ..Run::default() }
    }

    #[test]
    fn a_skipped_test_is_named_and_is_not_among_the_passed() {
        let verdict = run(10, 0, vec![skip("ebpf", "loads")]).verdict();
        assert_eq!(verdict.lines, ["skipped loads (ebpf): not here", "9 passed, 0 failed, 1 skipped"]);
        assert!(verdict.ok);
    }

    #[test]
    fn ignored_tests_are_skipped_too() {
        let counts = Counts { passed: 3, failed: 0, ignored: 2 };
        let verdict = Run { counts, ..Run::default() }.verdict();
        assert_eq!(verdict.lines, ["skipped 2 more: marked #[ignore]", "3 passed, 0 failed, 2 skipped"]);
    }

    #[test]
    fn a_failed_test_or_runner_fails_the_run_and_the_count_stays_last() {
        assert!(!run(10, 1, vec![]).verdict().ok);
        let verdict = Run { problems: vec!["`cargo test` failed".into()], ..run(10, 0, vec![]) }.verdict();
        assert!(!verdict.ok);
        assert_eq!(verdict.lines, ["error: `cargo test` failed", "10 passed, 0 failed, 0 skipped"]);
    }

    #[test]
    fn ci_refuses_skips_of_what_it_has() {
        for group in ["ebpf", "namespaces", "etcd"] {
            let verdict =
                Run { in_ci: true, ..run(10, 0, vec![skip(group, "one"), skip(group, "two")]) }.verdict();
            assert!(!verdict.ok, "{group}");
            assert_eq!(
                verdict.lines[2],
                format!("error: tests of group {group} may not be skipped in CI: one, two")
            );
        }
        assert!(Run { in_ci: true, ..run(10, 0, vec![skip("arm64", "one")]) }.verdict().ok);
    }

    #[test]
    fn a_run_without_tests_fails_in_ci_only() {
        assert!(run(0, 0, vec![]).verdict().ok);
        assert!(!Run { in_ci: true, ..run(0, 0, vec![]) }.verdict().ok);
    }
}

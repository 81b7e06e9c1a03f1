//! Reads the numbers that test runners print.

use std::ops::Add;

/// How many tests ended in which way, as the runner counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Marked `#[ignore]`.
    pub(crate) ignored: usize,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

/// From nextest's summary, `None` if it printed none.
///
/// ```text
/// Summary [   0.013s] 4/5 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 0 skipped
/// ```
///
/// What nextest calls skipped are ignored tests and those that a name filter leaves out, together: it counts only if
/// the run was not `filtered`.
pub(crate) fn parse_nextest(output: &str, filtered: bool) -> Option<Counts> {
    let output = strip_ansi(output);
    let summary = output.lines().rfind(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, numbers) = summary.split_once(" run: ")?;
    let mut counts = Counts::default();
    for part in without_parentheses(numbers).split(',') {
        let (number, outcome) = part.trim().split_once(' ')?;
        let number: usize = number.parse().ok()?;
        match outcome.trim() {
            "passed" => counts.passed += number,
            "skipped" if filtered => {}
            "skipped" => counts.ignored += number,
            // failed, timed out, exec failed: what is not a success is a failure.
            _ => counts.failed += number,
        }
    }
    Some(counts)
}

/// From the lines of libtest, one for each test binary, `None` if there is none.
///
/// ```text
/// test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s
/// ```
pub(crate) fn parse_libtest(output: &str) -> Option<Counts> {
    let output = strip_ansi(output);
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
    results.map(parse_test_result).reduce(Counts::add)
}

fn parse_test_result(result: &str) -> Counts {
    let number = |outcome: &str| {
        let part = result.split(['.', ';']).find_map(|part| part.trim().strip_suffix(outcome));
        part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    Counts { passed: number(" passed"), failed: number(" failed"), ignored: number(" ignored") }
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_usize;
    text.chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

/// Removes colours: `ESC [ … letter` (ECMA-48, control sequences).
fn strip_ansi(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.find(char::is_ascii_alphabetic);
        } else {
            stripped.push(c);
        }
    }
    stripped
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counts(passed: usize, failed: usize, ignored: usize) -> Counts {
        Counts { passed, failed, ignored }
    }

    #[test]
    fn nextest_summaries_are_read_in_all_their_forms() {
        let cases = [
            ("     Summary [   0.010s] 12 tests run: 11 passed, 1 failed, 0 skipped", counts(11, 1, 0)),
            ("     Summary [   0.010s] 1 test run: 1 passed, 3 skipped", counts(1, 0, 3)),
            ("     Summary [   0.010s] 0 tests run: 0 passed, 0 skipped", counts(0, 0, 0)),
            (
                "     Summary [  61.0s] 4/9 tests run: 2 passed (1 slow, 1 leaky), 1 timed out, 1 exec failed, 0 skipped",
                counts(2, 2, 0),
            ),
        ];
        for (summary, expected) in cases {
            let output =
                format!("        PASS [   0.003s] xtask a\n{summary}\n        FAIL [   0.1s] xtask b\n");
            assert_eq!(parse_nextest(&output, false), Some(expected), "{summary}");
        }
    }

    #[test]
    fn tests_that_a_filter_leaves_out_are_not_skipped() {
        let output = "Summary [   0.010s] 2 tests run: 2 passed, 40 skipped";
        assert_eq!(parse_nextest(output, true), Some(counts(2, 0, 0)));
    }

    #[test]
    fn colours_do_not_hide_the_numbers() {
        let output = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.014s] \u{1b}[1m2\u{1b}[0m tests run: \u{1b}[1m1\u{1b}[0m \
            \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m1\u{1b}[0m \u{1b}[31;1mfailed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m \u{1b}[33;1mskipped\u{1b}[0m\n";
        assert_eq!(parse_nextest(output, false), Some(counts(1, 1, 0)));
        let output = "test result: \u{1b}[32mok\u{1b}[0m. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(parse_libtest(output), Some(counts(2, 0, 1)));
    }

    #[test]
    fn the_binaries_of_libtest_are_added_up() {
        let output = "running 3 tests\ntest a ... ok\n\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s\n\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n";
        assert_eq!(parse_libtest(output), Some(counts(13, 2, 1)));
    }

    #[test]
    fn a_build_that_failed_has_no_counts() {
        let output = "error: could not compile `xtask` (bin \"xtask\") due to 1 previous error\n";
        assert_eq!((parse_nextest(output, false), parse_libtest(output)), (None, None));
    }
}

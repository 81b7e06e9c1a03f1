//! What clients saw: counts of who answered, and the moment after which nothing failed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::demo::load::Outcome;

/// The first requests of a client, none of them left out: whoever is answered late is waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    outcomes: Vec<Outcome>,
}

impl Observed {
    pub(super) fn new(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes }
    }

    pub(super) fn sent(&self) -> u64 {
        self.outcomes.len() as u64
    }

    pub(super) fn failed(&self) -> u64 {
        self.outcomes.iter().filter(|outcome| outcome.answer.is_none()).count() as u64
    }

    pub(super) fn by_pod(&self, pod: &str) -> u64 {
        let answers = self.outcomes.iter().filter_map(|outcome| outcome.answer.as_ref());
        answers.filter(|answer| answer.pod == pod).count() as u64
    }

    /// The clusters that answered.
    pub(super) fn clusters(&self) -> BTreeSet<&str> {
        self.outcomes.iter().filter_map(|outcome| Some(outcome.answer.as_ref()?.cluster.as_str())).collect()
    }

    /// Requests that were sent at `micros` or later.
    pub(super) fn since(&self, micros: u64) -> Self {
        self.only(|sent| sent >= micros)
    }

    /// Requests that were sent at `micros` or earlier.
    pub(super) fn until(&self, micros: u64) -> Self {
        self.only(|sent| sent <= micros)
    }

    fn only(&self, is_meant: impl Fn(u64) -> bool) -> Self {
        let meant = self.outcomes.iter().filter(|outcome| is_meant(outcome.sent_micros));
        Self { outcomes: meant.cloned().collect() }
    }

    /// After how long since `start_micros` every request was answered, and by `cluster` if one is given: when the last
    /// one was sent that was not. `None` until `enough` requests since have been answered like that.
    pub(super) fn settled(
        &self,
        start_micros: u64,
        cluster: Option<&str>,
        enough: usize,
    ) -> Option<Duration> {
        let is_good = |outcome: &Outcome| {
            outcome
                .answer
                .as_ref()
                .is_some_and(|answer| cluster.is_none_or(|cluster| answer.cluster == cluster))
        };
        let since = self.outcomes.iter().filter(|outcome| outcome.sent_micros >= start_micros);
        let last_bad =
            since.clone().filter(|outcome| !is_good(outcome)).map(|outcome| outcome.sent_micros).max();
        let from = last_bad.map_or(start_micros, |micros| micros + 1);
        let good = since.filter(|outcome| outcome.sent_micros >= from).count();
        (good >= enough).then(|| Duration::from_micros(last_bad.map_or(0, |micros| micros - start_micros)))
    }

    /// After how long since `start_micros` a request was sent that `cluster` answered.
    pub(super) fn first_answer_of(&self, cluster: &str, start_micros: u64) -> Option<Duration> {
        let answered = self.outcomes.iter().filter(|outcome| {
            outcome.sent_micros >= start_micros
                && outcome.answer.as_ref().is_some_and(|answer| answer.cluster == cluster)
        });
        answered
            .map(|outcome| outcome.sent_micros)
            .min()
            .map(|micros| Duration::from_micros(micros - start_micros))
    }
}

impl fmt::Display for Observed {
    /// Such as `104 of 200 answered by a, 96 by b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_cluster: BTreeMap<&str, u64> = BTreeMap::new();
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        for outcome in &self.outcomes {
            match (&outcome.answer, &outcome.error) {
                (Some(answer), _) => *by_cluster.entry(&answer.cluster).or_default() += 1,
                (None, error) => *errors.entry(error.as_deref().unwrap_or("failed")).or_default() += 1,
            }
        }
        let answered = by_cluster.iter().map(|(cluster, count)| format!("{count} answered by {cluster}"));
        let failed = errors.iter().map(|(error, count)| format!("{count} not ({error})"));
        let parts: Vec<String> = answered.chain(failed).collect();
        write!(f, "of {} requests, {}", self.sent(), parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::serve::Answer;

    fn outcome(sent_micros: u64, cluster: Option<&str>) -> Outcome {
        let answer =
            cluster.map(|cluster| Answer { pod: format!("web-{cluster}"), cluster: cluster.to_owned() });
        let error = cluster.is_none().then(|| "timed out".to_owned());
        Outcome { sent_micros, took_micros: 5, answer, error }
    }

    fn observed(clusters: &[Option<&str>]) -> Observed {
        let micros = (0..).step_by(10);
        Observed::new(micros.zip(clusters).map(|(micros, cluster)| outcome(micros, *cluster)).collect())
    }

    #[test]
    fn traffic_has_moved_when_the_last_other_answer_is_past() {
        let seen = observed(&[Some("b"), Some("a"), Some("b"), None, Some("a"), Some("a")]);
        assert_eq!(seen.settled(10, Some("a"), 2), Some(Duration::from_micros(20)));
        assert_eq!(seen.settled(10, Some("a"), 3), None, "two requests are not enough");
        assert_eq!(seen.settled(40, Some("a"), 2), Some(Duration::ZERO));
        assert_eq!(seen.settled(10, None, 2), Some(Duration::from_micros(20)));
        assert_eq!(seen.first_answer_of("b", 10), Some(Duration::from_micros(10)));
        assert_eq!(seen.first_answer_of("b", 30), None);
        assert_eq!((seen.since(10).until(30).sent(), seen.since(10).until(30).failed()), (3, 1));
    }

    #[test]
    fn counts_say_who_answered_and_why_nobody_did() {
        let seen = observed(&[Some("a"), Some("b"), Some("a"), None]);
        assert_eq!((seen.sent(), seen.failed(), seen.by_pod("web-a")), (4, 1, 2));
        assert_eq!(seen.to_string(), "of 4 requests, 2 answered by a, 1 answered by b, 1 not (timed out)");
    }
}

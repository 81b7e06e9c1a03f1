//! Each key is a register: one order of all operations explains every answer, and puts none before one that had ended.
//!
//! The search is stateright's. Revisions spare it most of the way: a write has its place by its revision, which is that of
//! the answer, or, where none came, of the event that watchers saw.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::history::{Answer, Held};

/// Steps after which a search has failed. One that succeeds does not go wrong once: operations are tried in the order of
/// their revisions first.
const MAX_STEPS: u64 = 20_000;

/// What is done to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Get,
    Put {
        value: String,
        revision: i64,
    },
    Swap {
        expected: Option<String>,
        value: String,
        revision: i64,
    },
    /// By a client, or by the end of a lease.
    Delete {
        revision: i64,
    },
}

/// Something done to one key, and when.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) step: Step,
    pub(crate) answer: Answer,
    /// Where the search is to try it first: the revision of the answer, and whether it made that revision.
    pub(crate) place: (i64, bool),
    pub(crate) asked_at: u64,
    /// `u64::MAX` if no answer came.
    pub(crate) told_at: u64,
}

#[derive(Clone, Debug)]
struct Register {
    holds: Option<Held>,
    newest: i64,
    steps: Rc<Cell<u64>>,
}

impl SequentialSpec for Register {
    type Op = Step;
    type Ret = Answer;

    fn invoke(&mut self, step: &Step) -> Answer {
        let (value, revision) = match step {
            Step::Get => return Answer::Holds(self.holds.clone()),
            Step::Swap { expected, .. }
                if self.holds.as_ref().map(|held| &held.value) != expected.as_ref() =>
            {
                return Answer::Holds(self.holds.clone());
            }
            Step::Delete { .. } if self.holds.is_none() => return Answer::Nothing,
            Step::Delete { revision } => (None, *revision),
            Step::Put { value, revision } | Step::Swap { value, revision, .. } => (Some(value), *revision),
        };
        self.holds = value.map(|value| Held { value: value.clone(), revision });
        self.newest = revision;
        Answer::Done
    }

    fn is_valid_step(&mut self, step: &Step, answer: &Answer) -> bool {
        self.steps.set(self.steps.get() + 1);
        let newest = self.newest;
        let is_right = self.invoke(step) == *answer;
        is_right
            && (newest < self.newest || newest == self.newest && *answer != Answer::Done)
            && self.steps.get() < MAX_STEPS
    }
}

/// # Errors
/// No order of them explains the answers.
pub(crate) fn check(mut history: Vec<Done>) -> Result<(), String> {
    history.sort_by_key(|done| (done.place.0, !done.place.1, done.asked_at));
    let mut moments: BTreeMap<(u64, usize), bool> = BTreeMap::new();
    for (number, done) in history.iter().enumerate() {
        moments.insert((done.asked_at, number), true);
        moments.insert((done.told_at, number), false);
    }
    let steps = Rc::new(Cell::new(0));
    let register = Register { holds: None, newest: 0, steps: Rc::clone(&steps) };
    // Each operation is a thread of its own; which came before which is in the moments.
    let mut tester = LinearizabilityTester::new(register);
    for ((_, number), is_asked) in moments {
        let done = &history[number];
        if is_asked {
            tester.on_invoke(number, done.step.clone())?;
        } else {
            tester.on_return(number, done.answer.clone())?;
        }
    }
    if tester.is_consistent() {
        return Ok(());
    }
    let lines: Vec<String> = history.iter().map(|done| format!("  {done:?}")).collect();
    Err(format!("not linearizable ({} steps tried):\n{}", steps.get(), lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(step: Step, answer: Answer, revision: i64, asked_at: u64, told_at: u64) -> Done {
        let place = (revision, answer == Answer::Done);
        Done { step, answer, place, asked_at, told_at }
    }

    fn put(value: &str, revision: i64, asked_at: u64, told_at: u64) -> Done {
        done(Step::Put { value: value.to_owned(), revision }, Answer::Done, revision, asked_at, told_at)
    }

    fn get(held: Option<(&str, i64)>, revision: i64, asked_at: u64, told_at: u64) -> Done {
        let held = held.map(|(value, revision)| Held { value: value.to_owned(), revision });
        done(Step::Get, Answer::Holds(held), revision, asked_at, told_at)
    }

    #[test]
    fn a_read_beside_a_write_may_see_either() {
        let write = || vec![put("a", 2, 0, 1), put("b", 3, 2, 9)];
        for held in [("a", 2), ("b", 3)] {
            check([write(), vec![get(Some(held), held.1, 3, 4)]].concat()).unwrap();
        }
        let backwards = vec![get(Some(("b", 3)), 3, 3, 4), get(Some(("a", 2)), 2, 5, 6)];
        check([write(), backwards].concat()).unwrap_err();
    }

    #[test]
    fn a_stale_read_is_found() {
        check(vec![put("a", 2, 0, 1), put("b", 3, 2, 3), get(Some(("a", 2)), 2, 4, 5)]).unwrap_err();
        check(vec![put("a", 2, 0, 1), get(None, 1, 2, 3)]).unwrap_err();
    }

    #[test]
    fn a_write_without_an_answer_may_come_at_any_time_after_it_was_asked_for() {
        let open = put("b", 3, 2, u64::MAX);
        check(vec![put("a", 2, 0, 1), open.clone(), get(Some(("a", 2)), 2, 5, 6)]).unwrap();
        check(vec![put("a", 2, 0, 1), open.clone(), get(Some(("b", 3)), 3, 5, 6)]).unwrap();
        check(vec![open, get(Some(("b", 3)), 3, 0, 1)]).unwrap_err();
    }

    #[test]
    fn two_that_swap_the_same_value_are_found() {
        let swap = |value: &str, revision, at| {
            let step = Step::Swap { expected: Some("a".to_owned()), value: value.to_owned(), revision };
            done(step, Answer::Done, revision, at, at + 5)
        };
        check(vec![put("a", 2, 0, 1), swap("b", 3, 2)]).unwrap();
        check(vec![put("a", 2, 0, 1), swap("b", 3, 2), swap("c", 4, 3)]).unwrap_err();
    }
}

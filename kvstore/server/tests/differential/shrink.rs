//! From a long sequence that fails to a short one: without what is behind the failure, and without whatever else can be left
//! out of it.

use std::time::{Duration, Instant};

use crate::operation::Operation;

/// Leaves out operations for as long as `fails` says that the rest fails too, in ever smaller pieces, until none can be left
/// out or the time is over.
pub(crate) async fn shrink(
    mut operations: Vec<Operation>,
    time: Duration,
    mut fails: impl AsyncFnMut(&[Operation]) -> Option<usize>,
) -> Vec<Operation> {
    let end = Instant::now() + time;
    let mut piece = operations.len() / 2;
    while piece > 0 {
        let mut at = 0;
        let before = operations.len();
        while at < operations.len() {
            if Instant::now() > end {
                return operations;
            }
            let mut rest = operations.clone();
            rest.drain(at..operations.len().min(at + piece));
            match fails(&rest).await {
                Some(index) => {
                    rest.truncate(index + 1);
                    operations = rest;
                }
                None => at += piece,
            }
        }
        if piece > 1 || operations.len() == before {
            piece /= 2;
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where a progress request follows a sync, whatever is between.
    fn failure(operations: &[Operation]) -> Option<usize> {
        let sync = operations.iter().position(|operation| *operation == Operation::Sync)?;
        let after = |operation: &Operation| matches!(operation, Operation::RequestProgress { .. });
        operations[sync..].iter().position(after).map(|at| sync + at)
    }

    #[tokio::test]
    async fn only_what_is_needed_to_fail_is_left() {
        let mut operations = vec![Operation::Leases; 100];
        operations[20] = Operation::Sync;
        operations[70] = Operation::RequestProgress { stream: 0 };
        operations[90] = Operation::RequestProgress { stream: 1 };
        let shrunk = shrink(operations, Duration::from_mins(1), async |rest| failure(rest)).await;
        assert_eq!(shrunk, [Operation::Sync, Operation::RequestProgress { stream: 0 }]);
    }
}

//! Tasks that start and end together.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the tasks of a stage may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

type Ended = (&'static str, anyhow::Result<()>);

/// Tasks that start and end together. Dropping it ends them at once.
#[derive(Debug)]
pub struct Stage {
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
    /// Tells those who hold the token outside of `tasks`.
    _stop_on_drop: DropGuard,
}

impl Stage {
    /// One without tasks.
    pub fn new() -> Self {
        let stop = CancellationToken::new();
        Self { stop: stop.clone(), tasks: JoinSet::new(), _stop_on_drop: stop.drop_guard() }
    }

    /// Told when the tasks are to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that ends when it is told to, by [`Stage::stop_token`].
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Runs a task that can be dropped wherever it waits.
    pub fn spawn_droppable(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.spawn(name, async move { stop.run_until_cancelled(task).await.unwrap_or(Ok(())) });
    }

    /// Resolves when a task ends without being told to, with the reason.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(ended) => reason(ended),
            None => std::future::pending().await,
        }
    }

    /// Tells the tasks to end and waits for them.
    ///
    /// # Errors
    /// Those of the tasks, or that some did not end in time.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let all_ended = async {
            let mut outcome = Ok(());
            while let Some(ended) = self.tasks.join_next().await {
                if !matches!(&ended, Ok((_, Ok(())))) {
                    outcome = outcome.and(Err(reason(ended)));
                }
            }
            outcome
        };
        timeout(DRAIN_DEADLINE, all_ended).await.context("tasks still ran at the deadline")?
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

fn reason(ended: Result<Ended, JoinError>) -> anyhow::Error {
    match ended {
        Ok((name, Err(error))) => error.context(format!("{name} failed")),
        Ok((name, Ok(()))) => anyhow!("{name} ended by itself"),
        Err(panicked) => anyhow!(panicked).context("a task panicked"),
    }
}

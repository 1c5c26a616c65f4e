//! Watches over tasks: none ends unnoticed, and all end when they are asked to.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::RunError;

/// Tasks, and how long they may take to end.
pub(super) struct Supervisor {
    grace: Duration,
    shutdown: CancellationToken,
    tasks: JoinSet<(&'static str, Result<(), RunError>)>,
    running: BTreeSet<&'static str>,
}

impl Supervisor {
    pub fn new(shutdown: CancellationToken, grace: Duration) -> Self {
        Self {
            grace,
            shutdown,
            tasks: JoinSet::new(),
            running: BTreeSet::new(),
        }
    }

    /// Starts a task; it ends when the token that it is given is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), RunError>> + Send + 'static,
    {
        let task = task(self.shutdown.clone());
        self.running.insert(name);
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits for the order to stop; an error if a task ends before it.
    pub async fn watch(&mut self) -> Result<(), RunError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            Some(ended) = self.tasks.join_next() => match self.note(ended) {
                (_, Err(error)) => Err(error),
                (name, Ok(())) if !self.shutdown.is_cancelled() => Err(RunError::Ended(name)),
                _ => Ok(()),
            },
        }
    }

    /// Waits for every task to end, and says which ones do not.
    pub async fn drain(&mut self) -> Result<(), RunError> {
        let grace = self.grace;
        let mut first = Ok(());
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                let (_, result) = self.note(ended);
                if first.is_ok() {
                    first = result;
                }
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            let stuck: Vec<_> = self.running.iter().copied().collect();
            self.tasks.abort_all();
            return Err(RunError::Stuck(stuck.join(", ")));
        }
        first
    }

    fn note(
        &mut self,
        ended: Result<(&'static str, Result<(), RunError>), tokio::task::JoinError>,
    ) -> (&'static str, Result<(), RunError>) {
        match ended {
            Ok((name, result)) => {
                self.running.remove(name);
                (name, result)
            }
            Err(_) => ("a part", Err(RunError::Panicked("a part"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named() {
        let mut supervisor = Supervisor::new(CancellationToken::new(), GRACE);
        supervisor.spawn("the patient one", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        supervisor.spawn("the hasty one", |_| async { Ok(()) });

        let ended = supervisor.watch().await.unwrap_err();

        assert!(ended.to_string().contains("the hasty one"), "{ended}");
    }

    #[tokio::test]
    async fn tasks_that_were_asked_to_end_end_well() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(stop.clone(), GRACE);
        supervisor.spawn("the patient one", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        stop.cancel();

        supervisor.watch().await.unwrap();
        supervisor.drain().await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_outlasts_the_grace_period_is_named() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(stop.clone(), Duration::from_millis(1));
        supervisor.spawn("the deaf one", |_| std::future::pending());
        stop.cancel();

        let stuck = supervisor.drain().await.unwrap_err();

        assert!(stuck.to_string().contains("the deaf one"), "{stuck}");
    }
}

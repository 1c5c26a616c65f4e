//! The process's tasks: watched while they run, stopped from the front to the back.

use std::future::Future;
use std::time::Duration;

use longhaul_broker::{Bus, Edge, Inflow};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long each layer gets to end.
const GRACE: Duration = Duration::from_secs(15);

/// A part that did not do its duty.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It ended without being told to.
    #[error("the {0} ended early")]
    Early(&'static str),
    /// It panicked.
    #[error("the {name} panicked: {text}")]
    Panicked {
        /// Which.
        name: &'static str,
        /// What it said.
        text: String,
    },
    /// The MQTT edge failed.
    #[error("the MQTT edge failed")]
    Edge(#[source] longhaul_broker::EdgeError),
    /// The backbone cannot be used any more.
    #[error("the backbone failed")]
    Backbone(#[source] longhaul_broker::BackboneError),
    /// It was told to end and did not.
    #[error("the {0} did not end in time")]
    Stuck(&'static str),
}

type Ended = (&'static str, Result<(), TaskError>);

/// One layer: it has a stop signal of its own.
#[derive(Default)]
struct Layer {
    tasks: JoinSet<Ended>,
    names: Vec<&'static str>,
    stop: CancellationToken,
}

impl Layer {
    fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), TaskError>> + Send + 'static,
    ) {
        self.names.push(name);
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// The next that ends; waits for ever if there is none.
    async fn next(&mut self) -> Ended {
        match self.tasks.join_next().await {
            Some(Ok((name, result))) => {
                self.names.retain(|n| *n != name);
                (name, result)
            }
            Some(Err(error)) => {
                let name = self.names.first().copied().unwrap_or("task");
                let text = error.to_string();
                (name, Err(TaskError::Panicked { name, text }))
            }
            None => std::future::pending().await,
        }
    }

    async fn stop(&mut self) -> Result<(), TaskError> {
        self.stop.cancel();
        let mut result = Ok(());
        let all = async {
            while !self.tasks.is_empty() {
                let (_, ended) = self.next().await;
                if ended.is_err() && result.is_ok() {
                    result = ended;
                }
            }
        };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            self.tasks.shutdown().await;
            return Err(TaskError::Stuck(
                self.names.first().copied().unwrap_or("task"),
            ));
        }
        result
    }
}

/// Three layers: what takes requests, the edge with what it feeds, and what both need to finish.
#[derive(Default)]
pub(super) struct Tasks {
    front: Layer,
    edge: Layer,
    back: Layer,
}

impl Tasks {
    /// A part that takes requests: stopped first.
    pub(super) fn front<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = run(self.front.stop.clone());
        self.front.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// A part that others need to finish: stopped last.
    pub(super) fn back<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = run(self.back.stop.clone());
        self.back.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Stops the edge.
    pub(super) fn edge_token(&self) -> CancellationToken {
        self.edge.stop.clone()
    }

    /// Watches the edge.
    pub(super) fn watch_edge(&mut self, edge: Edge) {
        self.edge.spawn("MQTT edge", async move {
            edge.stopped().await.map_err(TaskError::Edge)
        });
    }

    /// Watches the backbone.
    pub(super) fn watch_bus(&mut self, bus: Bus) {
        let stop = self.back.stop.clone();
        self.back.spawn("backbone", async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                failure = bus.failed() => Err(TaskError::Backbone(failure)),
            }
        });
    }

    /// Takes boxes' messages from the backbone, for a consumer.
    pub(super) fn inflow(&mut self, inflow: Inflow) {
        let stop = self.edge.stop.clone();
        self.edge.spawn("inflow", async move {
            inflow.run(stop).await.map_err(TaskError::Backbone)
        });
    }

    /// A part that ends when the edge has.
    pub(super) fn consumer(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.edge.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Waits until a part ends without being told to.
    pub(super) async fn ended_early(&mut self) -> TaskError {
        let (name, result) = tokio::select! {
            ended = self.front.next() => ended,
            ended = self.edge.next() => ended,
            ended = self.back.next() => ended,
        };
        match result {
            Ok(()) => TaskError::Early(name),
            Err(error) => error,
        }
    }

    /// Stops every part, from the front to the back.
    pub(super) async fn stop(&mut self) -> Result<(), TaskError> {
        let front = self.front.stop().await;
        let edge = self.edge.stop().await;
        let back = self.back.stop().await;
        front.and(edge).and(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_early_is_named() {
        let mut tasks = Tasks::default();
        tasks.back("steady part", |stop| async move { stop.cancelled().await });
        tasks.front("hasty part", |_| async {});

        let early = tasks.ended_early().await;

        assert!(matches!(early, TaskError::Early("hasty part")));
        assert!(tasks.stop().await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_ends_the_process_with_an_error() {
        let mut tasks = Tasks::default();
        tasks.front("clumsy part", |_| async { panic!("oh no") });

        assert!(matches!(
            tasks.ended_early().await,
            TaskError::Panicked { .. }
        ));
    }
}

//! Starts what updates the agent, and what proves that an updated one works.

use std::net::SocketAddr;

use tokio::sync::watch;

use super::supervisor::Supervisor;
use super::{Options, RunError};
use crate::cloud::CloudClient;
use crate::journal::JournalHandle;
use crate::ota::updater::{Ended, Parts, Updater};
use crate::ota::{UpdateError, health};
use crate::papers::TUF_ROOT_FILE;
use crate::update::{AgentHandle, UpdateRequests};

/// What updates work with.
pub(super) struct Updates {
    pub cloud: CloudClient,
    pub journal: JournalHandle,
    pub agent: AgentHandle,
    pub requests: UpdateRequests,
    /// Where customers can push, once they can.
    pub bound: watch::Receiver<Option<SocketAddr>>,
}

impl Updates {
    /// Starts both, where a supervisor started this agent: nobody else could go back.
    pub fn spawn(self, options: &Options, supervisor: &mut Supervisor) {
        let Some(slot) = options.slot else { return };
        let (state, version) = (options.state.clone(), options.agent_version.clone());
        let (position, bound) = (self.journal.position(), self.bound);
        supervisor.spawn("the proof of health", |stop| async move {
            Ok(health::prove(state, version, position, bound, stop).await?)
        });
        let updater = Updater::new(Parts {
            state: options.state.clone(),
            tuf_root: options.factory_dir().join(TUF_ROOT_FILE),
            agent_version: options.agent_version.clone(),
            slot,
            cloud: self.cloud,
            journal: self.journal,
            agent: self.agent,
        });
        let requests = self.requests;
        supervisor.spawn("the updater", |stop| async move {
            match updater.run(requests, stop).await {
                Ok(Ended::Stopped) => Ok(()),
                Ok(Ended::Restart) => Err(RunError::Restart),
                Err(UpdateError::Journal(error)) => Err(error.into()),
                Err(error) => Err(RunError::Part {
                    part: "the updater",
                    source: Box::new(error),
                }),
            }
        });
    }
}

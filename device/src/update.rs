//! Between the agent and whoever carries out updates.

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::Outcome;
use longhaul_protocol::release::Assignment;
use longhaul_protocol::twin::Slots;
use tokio::sync::mpsc;

use crate::agent::Event;

/// Updates that wait to be looked at; the agent hands on one at a time.
const QUEUE: usize = 4;

/// An accepted command to update. After a restart, one that has not ended is handed on again.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateRequest {
    /// The command; its end is told with [`AgentHandle::command_ended`].
    pub command: CommandId,
    /// What to update to.
    pub assignment: Assignment,
}

/// Receives what is to be updated.
pub type UpdateRequests = mpsc::Receiver<UpdateRequest>;

/// Tells the agent what became of what it handed on.
#[derive(Clone, Debug)]
pub struct AgentHandle(mpsc::Sender<Event>);

impl AgentHandle {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self(events)
    }

    /// A command has ended; the agent journals the result. Telling it twice does no harm.
    pub async fn command_ended(&self, id: CommandId, outcome: Outcome) {
        self.tell(Event::CommandEnded { id, outcome }).await;
    }

    /// What is installed now.
    pub async fn slots(&self, slots: Slots) {
        self.tell(Event::Slots(slots)).await;
    }

    async fn tell(&self, event: Event) {
        // Only fails while the agent stops; what has not ended is handed on again then.
        let _ = self.0.send(event).await;
    }
}

/// A queue of updates.
pub fn channel() -> (mpsc::Sender<UpdateRequest>, UpdateRequests) {
    mpsc::channel(QUEUE)
}

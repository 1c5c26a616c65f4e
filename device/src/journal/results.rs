//! Results of commands that wait in the journal. The cloud asks for a result at every birth until it
//! has committed it; one that still waits is on its way already and is not written a second time.

use std::collections::BTreeMap;

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::Fact;

/// The results that the cloud has not committed, and the number of each.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<CommandId, u64>);

impl Results {
    /// The number under which the same result waits.
    pub fn waiting(&self, fact: &Fact) -> Option<u64> {
        match fact {
            Fact::CommandResult { id, .. } => self.0.get(id).copied(),
            _ => None,
        }
    }

    /// Takes note of an entry.
    pub fn written(&mut self, number: u64, fact: &Fact) {
        if let Fact::CommandResult { id, .. } = fact {
            self.0.insert(id.clone(), number);
        }
    }

    /// The cloud has committed everything up to `through`.
    pub fn forget(&mut self, through: u64) {
        if !self.0.is_empty() {
            self.0.retain(|_, number| *number > through);
        }
    }
}

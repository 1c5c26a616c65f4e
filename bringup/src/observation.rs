//! What is seen of one rung.

use longhaul_protocol::diag::{Code, Rung};

/// What a probe saw of one rung.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observation {
    pub rung: Rung,
    /// Why it does not hold; `None` where it holds.
    pub code: Option<Code>,
    /// What was seen.
    pub evidence: String,
}

impl Observation {
    /// The rung holds.
    pub fn ok(rung: Rung, evidence: impl Into<String>) -> Self {
        Self {
            rung,
            code: None,
            evidence: evidence.into(),
        }
    }

    /// The code's rung does not hold.
    pub fn failed(code: Code, evidence: impl Into<String>) -> Self {
        Self {
            rung: code.entry().rung,
            code: Some(code),
            evidence: evidence.into(),
        }
    }
}

//! Enrolment and the journal without a line to the cloud: by files that somebody carries.
//!
//! The box writes a request; the portal turns it into an answer; the box takes it. What was asked for
//! lies on the disk before it is shown, and an answer is on the disk before it counts. [`answer`] judges
//! and does no IO, [`stick`] reads and writes what is plugged in, `runtime` does the rest.

pub mod answer;
pub mod pending;
pub mod reset;
pub mod stick;

use longhaul_protocol::diag::Code;
use longhaul_protocol::value::UnixMillis;
use serde::{Deserialize, Serialize};

/// What screen, page and console say of it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shown {
    /// The request that waits for its answer, a line for each QR code; empty where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// Until when the box is registered by an answer that somebody carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
    /// Why the last answer was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// Why an answer was not taken.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refused {
    /// Its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was wrong, in words.
    pub text: String,
}

impl Shown {
    /// What to say in a line or two; empty where there is nothing to say.
    pub fn said(&self) -> String {
        if let Some(refused) = &self.refused {
            let code = refused.code;
            let next = code.map_or("", |code| code.entry().customer);
            let code = code.map_or_else(String::new, |code| format!("{code} "));
            return format!("{code}{}. {next}", refused.text);
        }
        if !self.lines.is_empty() {
            return "This box asks to be registered without a line: bring the request from the stick, or these codes, to the portal, and the answer back.".to_owned();
        }
        if self.until.is_some() {
            return "Registered without a line. Push your files: the box keeps them and delivers them when it reaches us.".to_owned();
        }
        String::new()
    }
}

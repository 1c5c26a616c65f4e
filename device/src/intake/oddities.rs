//! What is odd about names that the box took or refused, for the operators: gathered, because a folder
//! may have a hundred thousand of them, and told as one fact in a while.

use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::journal::Fact;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::journal::{JournalError, JournalHandle};

/// The part that they are told of.
const PART: &str = "names";
/// Those that are told in full; the others are counted.
const EXAMPLES: usize = 3;
/// Time in which more is awaited.
const GATHER: Duration = Duration::from_secs(1);
/// Time between two facts.
const PAUSE: Duration = Duration::from_secs(10);

/// Gathers oddities. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Oddities(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    rung: Notify,
}

/// What was gathered since it was told last. Pure.
#[derive(Debug, Default)]
struct Gathered {
    count: u64,
    examples: Vec<String>,
}

impl Gathered {
    fn add(&mut self, bucket: &str, text: &str) {
        let example = format!("{text} (bucket {bucket:?})");
        // Who tries again is one and the same.
        if self.examples.contains(&example) {
            return;
        }
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }

    /// All of it in words; `None` where there is nothing.
    fn words(self) -> Option<String> {
        let more = self.count.checked_sub(self.examples.len() as u64)?;
        let mut text = self.examples.join("; ");
        if more > 0 {
            text = format!("{text}; and {more} more like these");
        }
        (!text.is_empty()).then_some(text)
    }
}

impl Oddities {
    /// Takes in one; never waits.
    pub(crate) fn add(&self, bucket: &str, text: &str) {
        self.0.gathered.lock().add(bucket, text);
        self.0.rung.notify_one();
    }

    /// Tells the cloud until `stop`.
    ///
    /// # Errors
    ///
    /// What the journal says, but not that it is full for now: then they are in the log only.
    pub(crate) async fn tell(
        self,
        journal: JournalHandle,
        stop: CancellationToken,
    ) -> Result<(), JournalError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.0.rung.notified() => {}
            }
            // What comes together is told together.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(GATHER) => {}
            }
            let gathered = std::mem::take(&mut *self.0.gathered.lock());
            if let Some(text) = gathered.words() {
                let part = PART.to_owned();
                match journal.append(Fact::Notice { part, text }).await {
                    Ok(_) => {}
                    Err(error @ (JournalError::Full { .. } | JournalError::TooLong { .. })) => {
                        tracing::error!(%error, "odd names not told");
                    }
                    Err(error) => return Err(error),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_odd_names_are_a_few_words() {
        let mut gathered = Gathered::default();
        for n in 0..100_000 {
            gathered.add("survey", &format!("the name \"A{n}\" is odd"));
        }

        let text = gathered.words().expect("something");

        assert!(
            text.starts_with("the name \"A0\" is odd (bucket \"survey\"); "),
            "{text}"
        );
        assert!(text.ends_with("; and 99997 more like these"), "{text}");
    }

    #[test]
    fn who_tries_again_is_told_once_and_nothing_is_not_told() {
        assert_eq!(Gathered::default().words(), None);
        let mut gathered = Gathered::default();

        gathered.add("survey", "odd");
        gathered.add("survey", "odd");

        assert_eq!(gathered.words().as_deref(), Some("odd (bucket \"survey\")"));
    }
}

//! What the system says about a folder, collected until somebody asks. Bounded: too many paths
//! become one word, "look at everything".

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Paths kept at the most.
const MOST: usize = 50_000;

/// What happened since it was last asked for.
#[derive(Debug, Default)]
pub struct Happened {
    /// Files and folders that were touched.
    pub paths: BTreeSet<PathBuf>,
    /// Something was missed: the whole folder must be looked at.
    pub missed: bool,
}

#[derive(Default)]
struct Shared {
    happened: Mutex<Happened>,
    bell: Notify,
}

impl Shared {
    fn add(&self, event: notify::Result<Event>) {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(event) => {
                if event.need_rescan() {
                    happened.missed = true;
                } else if concerns(event.kind) {
                    happened.paths.extend(event.paths);
                } else {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the system lost events");
                happened.missed = true;
            }
        }
        if happened.paths.len() > MOST {
            happened.paths.clear();
            happened.missed = true;
        }
        drop(happened);
        self.bell.notify_one();
    }
}

/// Whether a file may have new content. Reading is no reason, or we would wake ourselves.
fn concerns(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Any
        | EventKind::Other => true,
        EventKind::Access(_) | EventKind::Remove(_) => false,
    }
}

/// Events of one folder and everything below it; ends when dropped.
pub struct Events {
    shared: Arc<Shared>,
    _watcher: RecommendedWatcher,
}

impl Events {
    /// Begins to listen; blocks while the folders are walked.
    ///
    /// # Errors
    ///
    /// What the system says: too many folders for its limit, or a file system without events.
    pub fn of(folder: &Path) -> notify::Result<Self> {
        let shared = Arc::new(Shared::default());
        let to = Arc::clone(&shared);
        let mut watcher = notify::recommended_watcher(move |event| to.add(event))?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(Self {
            shared,
            _watcher: watcher,
        })
    }

    /// Waits until something has happened.
    pub async fn wait(&self) {
        self.shared.bell.notified().await;
    }

    /// What has happened since the last time.
    pub fn take(&self) -> Happened {
        let mut happened = self
            .shared
            .happened
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *happened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, Flag};

    #[test]
    fn too_many_paths_become_one_look_at_everything() {
        let shared = Shared::default();
        for n in 0..=MOST {
            let event = Event::new(EventKind::Create(CreateKind::File));
            shared.add(Ok(event.add_path(PathBuf::from(n.to_string()))));
        }
        let happened = shared.happened.lock().expect("not poisoned");
        assert!(happened.missed);
        assert!(happened.paths.is_empty());
    }

    #[test]
    fn an_overflow_is_noticed_and_reading_is_not() {
        let shared = Shared::default();
        let read = EventKind::Access(AccessKind::Read);
        shared.add(Ok(Event::new(read).add_path("f".into())));
        assert!(
            shared
                .happened
                .lock()
                .expect("not poisoned")
                .paths
                .is_empty()
        );

        shared.add(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));

        assert!(shared.happened.lock().expect("not poisoned").missed);
    }
}

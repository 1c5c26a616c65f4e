//! What each step of an update does; all of it may be done twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_protocol::release::UpdateStep;
use tokio_util::sync::CancellationToken;

use super::UpdateError;
use super::download::Download;
use super::patience::Patience;
use super::repository::{self, Refused};
use super::slots::sha256_of;
use super::state::{Event, Update};
use super::updater::{Done, Ended, Updater, blocking};
use crate::cloud::chain;
use crate::disk::{self, DiskError};

/// How often the supervisor's verdict is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes that an update leaves free.
const MARGIN: u64 = 32 << 20;
/// A download is made durable after this many bytes, or a sixteenth of it if that is more.
const SYNC_BYTES: u64 = 4 << 20;

impl Updater {
    pub(super) async fn list(&self, update: &Update, stop: &CancellationToken) -> Done {
        let mut patience = Patience::new();
        loop {
            let memory = self.dir.join("metadata");
            let target = &update.assignment.target;
            let parts = &self.parts;
            let asked = repository::look_up(&parts.cloud, &parts.tuf_root, &memory, target);
            let answer = tokio::select! {
                () = stop.cancelled() => return Done::Ended(Ended::Stopped),
                answer = asked => answer,
            };
            match answer {
                Ok(listed) => {
                    return Done::Event(Event::Listed {
                        version: listed.version,
                        sha256: listed.sha256,
                        length: listed.length,
                    });
                }
                Err(refused) => {
                    if let Some(done) = patience.wait(refused, &self.parts.cloud, stop).await {
                        return done;
                    }
                }
            }
        }
    }

    pub(super) fn preflight(&self, update: &Update) -> Event {
        let image = self.image(update);
        self.forget_images(Some(&image));
        match self.obstacle(update, &image) {
            Ok(None) => Event::Clear,
            Ok(Some(obstacle)) => Event::Impossible(obstacle),
            Err(error) => Event::Impossible(chain(&error)),
        }
    }

    /// What keeps the update from being done.
    fn obstacle(&self, update: &Update, image: &Path) -> Result<Option<String>, DiskError> {
        let slots = &self.slots;
        let Some(current) = slots.current()? else {
            return Ok(Some("the supervisor knows no slots".to_owned()));
        };
        if current.active != self.parts.slot || current.trial.is_some() {
            return Ok(Some(format!(
                "slot {} is active, but this agent runs from slot {}",
                current.active.name(),
                self.parts.slot.name()
            )));
        }
        disk::make_dir(&self.dir)?;
        let read = |source| DiskError::Read {
            path: self.dir.clone(),
            source,
        };
        let stat = nix::sys::statvfs::statvfs(&self.dir).map_err(|e| read(e.into()))?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let there = std::fs::metadata(image).map_or(0, |m| m.len());
        // Once as it comes, once in its slot.
        let length = update.assignment.length;
        let needed = length.saturating_mul(2).saturating_sub(there);
        if free < needed.saturating_add(MARGIN) {
            return Ok(Some(format!(
                "the release needs {needed} bytes and {MARGIN} to spare, {free} are free in {}",
                self.dir.display()
            )));
        }
        Ok(None)
    }

    pub(super) async fn download(
        &self,
        update: &Update,
        stop: &CancellationToken,
    ) -> Result<Done, UpdateError> {
        let mut patience = Patience::new();
        let length = update.assignment.length;
        let opened = Download::open(&self.image(update), update.fetched(), length).await;
        let mut download = match opened {
            Ok(download) => download,
            Err(error) => return Ok(Done::Event(Event::Impossible(chain(&error)))),
        };
        while !download.is_whole() {
            let before = download.synced();
            let fetched = tokio::select! {
                () = stop.cancelled() => return Ok(Done::Ended(Ended::Stopped)),
                fetched = self.fetch(update, &mut download) => fetched?,
            };
            if let Err(error) = download.sync().await {
                return Ok(Done::Event(Event::Impossible(chain(&error))));
            }
            self.store(&update.with_fetched(download.synced())).await?;
            let Err(refused) = fetched else { continue };
            if download.synced() > before {
                patience = Patience::new();
            }
            if let Some(done) = patience.wait(refused, &self.parts.cloud, stop).await {
                return Ok(done);
            }
        }
        Ok(Done::Event(Event::Fetched))
    }

    /// Fetches until the answer ends, and says now and then how far it has come.
    async fn fetch(
        &self,
        update: &Update,
        download: &mut Download,
    ) -> Result<Result<(), Refused>, UpdateError> {
        let path = repository::target_path(&update.assignment);
        let every = SYNC_BYTES.max(update.assignment.length / 16);
        let mut response = match download.ask(&self.parts.cloud, &path).await {
            Ok(response) => response,
            Err(refused) => return Ok(Err(refused)),
        };
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Ok(Err(Refused::Later(chain(&error)))),
            };
            if let Err(refused) = download.take(&path, &chunk).await {
                return Ok(Err(refused));
            }
            if download.unsynced() >= every {
                if let Err(error) = download.sync().await {
                    return Ok(Err(error.into()));
                }
                self.note(&update.with_fetched(download.synced())).await?;
            }
        }
        if let Err(error) = download.sync().await {
            return Ok(Err(error.into()));
        }
        if download.is_whole() {
            Ok(Ok(()))
        } else {
            Ok(Err(Refused::Later(format!("{path} ended early"))))
        }
    }

    pub(super) async fn hash(&self, update: &Update) -> Result<Event, UpdateError> {
        let image = self.image(update);
        let hashed = blocking("hashing an image", move || {
            let sha256 = sha256_of(&image)?;
            Ok::<_, std::io::Error>((sha256, std::fs::metadata(&image)?.len()))
        });
        Ok(match hashed.await? {
            Ok((sha256, length)) => Event::Hashed { sha256, length },
            Err(error) => Event::Impossible(format!("the image cannot be read: {error}")),
        })
    }

    /// Puts the image into the other slot and arms it, unless that was done and even judged before.
    pub(super) async fn arm(&self, update: &Update) -> Result<Event, UpdateError> {
        let (slots, image) = (self.slots.clone(), self.image(update));
        let (slot, update) = (self.parts.slot, update.clone());
        let armed = blocking("filling a slot", move || {
            let command = &update.status.command;
            let current = match slots.current() {
                Ok(Some(current)) => current,
                Ok(None) => return Err("the supervisor knows no slots".to_owned()),
                Err(error) => return Err(chain(&error)),
            };
            let tried = current.trial.as_ref().map(|t| &t.command);
            let judged = current.last.as_ref().map(|l| &l.command);
            if tried == Some(command) || judged == Some(command) {
                return Ok(());
            }
            if current.active != slot {
                return Err("this agent does not run from the active slot".to_owned());
            }
            let wanted = &update.assignment;
            slots
                .install(slot.other(), &image, &wanted.version, Some(wanted.sha256))
                .map_err(|e| chain(&e))?;
            let (rollout, version) = (wanted.rollout.clone(), wanted.version.clone());
            slots
                .arm(&current, command.clone(), rollout, version)
                .map_err(|e| chain(&e))
        });
        Ok(match armed.await? {
            Ok(()) => Event::Armed,
            Err(why) => Event::Impossible(why),
        })
    }

    /// Waits for what the supervisor thinks of the trial, or makes way for it.
    pub(super) async fn verdict(
        &self,
        update: &Update,
        stop: &CancellationToken,
    ) -> Result<Done, UpdateError> {
        let command = &update.status.command;
        loop {
            let current = self.slots.current()?;
            let trial = current.as_ref().and_then(|c| c.trial.as_ref());
            let last = current.as_ref().and_then(|c| c.last.as_ref());
            match (trial, last) {
                (Some(trial), _) if trial.command == *command => {
                    if trial.slot != self.parts.slot {
                        return Ok(Done::Ended(Ended::Restart));
                    }
                    if update.status.step == UpdateStep::Reboot {
                        return Ok(Done::Event(Event::OnTrial));
                    }
                }
                (_, Some(last)) if last.command == *command => {
                    return Ok(Done::Event(match &last.reason {
                        Some(reason) => Event::FellBack(reason.clone()),
                        None => Event::Proved,
                    }));
                }
                _ => {
                    let why = "the supervisor knows nothing of the trial";
                    return Ok(Done::Event(Event::FellBack(why.to_owned())));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(Done::Ended(Ended::Stopped)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn image(&self, update: &Update) -> PathBuf {
        let name = update.assignment.sha256.to_string();
        self.dir.join(name).with_extension("image")
    }

    /// Removes images that are of no use any more; what cannot be removed is at the next update.
    pub(super) fn forget_images(&self, except: Option<&Path>) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        for path in entries.filter_map(|e| e.ok().map(|e| e.path())) {
            let image = path.extension().is_some_and(|e| e == "image");
            if image
                && Some(path.as_path()) != except
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "image not removed");
            }
        }
    }
}

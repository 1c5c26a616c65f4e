//! Reading the index, wherever it lies: what was touched lately is in memory, the rest in runs.
//!
//! Nobody holds the index while runs are read. What memory said before that may be over afterwards;
//! so it is asked again, and what changed meanwhile is looked for once more.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use crate::{
    Damage, Deletion, Error, ObjectInfo, Page, Pending, Version,
    core::Core,
    index::{
        Entry, Stored,
        settle::{self, Held},
    },
    keyring::JobNo,
    op::{Body, Extent, Owner},
    runs::{self, RunError},
};

impl Core {
    /// The current version of an object.
    pub(crate) fn current(&self, job: JobNo, key: &str) -> Result<Version, Error> {
        loop {
            let (here, runs) = self.index.read().current(job, key)?;
            if let Some(version) = here {
                return Ok(Version(version));
            }
            let had = runs::find_name(&runs, key).map_err(|e| self.unread(e, Some(job), key, 0))?;
            let index = self.index.read();
            let (here, runs_now) = index.current(job, key)?;
            let lives = |version: &u64| index.lives_in(job, *version);
            match here.or_else(|| had.into_iter().find(lives)) {
                Some(version) => return Ok(Version(version)),
                None if Arc::ptr_eq(&runs, &runs_now) => {
                    return Err(Error::NoSuchObject(key.to_owned()));
                }
                // What was in memory is in a run now.
                None => {}
            }
        }
    }

    /// Does `then` with the current version of an object; again, if that is another by then.
    pub(crate) fn with_current<T>(
        &self,
        job: JobNo,
        key: &str,
        then: impl Fn(Version) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let version = self.current(job, key)?;
            match then(version) {
                Err(Error::NoSuchVersion(gone)) if gone == version.0 => {}
                done => return done,
            }
        }
    }

    /// `key` is the name that it was found under, if any, for whoever is told of damage.
    fn entry(&self, version: Version, key: &str) -> Result<(crate::JobId, Entry), Error> {
        let absent = Error::NoSuchVersion(version.0);
        let held = self.index.read().held(version.0);
        match held {
            None => Err(absent),
            Some(Held::Here(entry, id)) => Ok((id, entry)),
            Some(Held::Runs(job, id, runs)) => {
                let entry = settle::entry(&runs, job, version.0)
                    .map_err(|e| self.unread(e, Some(job), key, version.0))?;
                Ok((id, *entry))
            }
        }
    }

    pub(crate) fn info(&self, version: Version, key: &str) -> Result<ObjectInfo, Error> {
        let (id, entry) = self.entry(version, key)?;
        Ok(entry.info(&id, version.0))
    }

    /// BLAKE3 of a version, if it is known.
    pub(crate) fn blake3(&self, version: Version) -> Result<Option<[u8; 32]>, Error> {
        Ok(self.entry(version, "")?.1.blake3())
    }

    /// A version, its job's number and its bytes, if they are still here. Their space is not given to
    /// anybody while the body is held.
    pub(crate) fn open(
        &self,
        version: Version,
        key: &str,
    ) -> Result<(ObjectInfo, JobNo, Option<Body>), Error> {
        let (id, mut entry) = self.entry(version, key)?;
        // The one that memory counts the holders of.
        if !self.index.read().share_body(version.0, &mut entry) {
            return Err(Error::NoSuchVersion(version.0));
        }
        let info = entry.info(&id, version.0);
        Ok((info, entry.job(), entry.body().cloned()))
    }

    pub(crate) fn list(
        &self,
        job: JobNo,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ObjectInfo>, Error> {
        let mut items = Vec::new();
        let behind = start_after.filter(|after| *after >= prefix);
        let mut from = behind.map_or(Included(prefix.to_owned()), |after| {
            Excluded(after.to_owned())
        });
        loop {
            let wanted = limit.saturating_sub(items.len()).saturating_add(1);
            let (names, next) = self.names(job, prefix, &from, wanted)?;
            for (name, version) in names {
                let info = match self.info(Version(version), &name) {
                    // Written again meanwhile, or deleted.
                    Err(Error::NoSuchVersion(_)) => {
                        match self.with_current(job, &name, |version| self.info(version, &name)) {
                            Err(Error::NoSuchObject(_)) => continue,
                            info => info?,
                        }
                    }
                    info => info?,
                };
                if items.len() == limit {
                    return Ok(Page { items, more: true });
                }
                items.push(info);
            }
            match next {
                Some(next) => from = Excluded(next),
                None => return Ok(Page { items, more: false }),
            }
        }
    }

    /// Some names from `from` on and their versions, in order; and behind which name there are
    /// more.
    #[expect(clippy::type_complexity, reason = "names, and where to go on")]
    fn names(
        &self,
        job: JobNo,
        prefix: &str,
        from: &std::ops::Bound<String>,
        limit: usize,
    ) -> Result<(Vec<(String, u64)>, Option<String>), Error> {
        let (Included(first) | Excluded(first)) = from else {
            return Ok((Vec::new(), None));
        };
        let passed = |name: &str| matches!(from, Excluded(first) if name <= &**first);
        loop {
            let (_, runs) = self.index.read().current(job, "")?;
            // One more than asked for: the first may be the one that the last page ended with.
            let (mut found, complete) =
                runs::names_from(&runs, first, prefix, limit.saturating_add(1))
                    .map_err(|e| self.unread(e, Some(job), first, 0))?;
            let horizon = found.last().map(|(name, _)| name.clone());
            let index = self.index.read();
            let (_, runs_now) = index.current(job, "")?;
            if !Arc::ptr_eq(&runs, &runs_now) {
                continue;
            }
            found.retain(|(name, version)| !passed(name) && index.lives_in(job, *version));
            let here = index.names(job, prefix, from.as_ref().map(|f| &**f), limit)?;
            drop(index);
            let cut = here.len() == limit;
            let last_here = here.last().map(|(name, _)| name.clone());
            found.extend(here);
            found.sort_unstable();
            found.dedup();
            // Behind either's end the other's names may not be all.
            let ends = [last_here.filter(|_| cut), horizon.filter(|_| !complete)];
            let end = ends.into_iter().flatten().min();
            if let Some(end) = &end {
                found.retain(|(name, _)| name <= end);
            }
            return Ok((found, end));
        }
    }

    /// Versions that are still to be delivered. What cannot be read is told and left out.
    pub(crate) fn pending(&self, after: Option<Version>, limit: usize) -> Vec<Pending> {
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let wanted = limit - found.len();
            let versions = self.index.read().pending(after, wanted);
            let Some(last) = versions.last() else { break };
            after = Some(Version(*last));
            let ended = versions.len() < wanted;
            found.extend(versions.into_iter().filter_map(|version| {
                let (job, entry) = self.entry(Version(version), "").ok()?;
                let delivery = entry.delivery().clone();
                // It went on while the run was read.
                delivery.is_pending().then(|| Pending {
                    job,
                    key: entry.key().to_owned(),
                    version: Version(version),
                    size: entry.size(),
                    delivery,
                })
            }));
            if ended {
                break;
            }
        }
        found
    }

    /// Versions that are verified in the cloud and whose bytes are here, and their sizes.
    pub(crate) fn releasable(&self, after: Option<Version>, limit: usize) -> Vec<(Version, u64)> {
        let versions = self.index.read().releasable(after, limit);
        let sized = versions.into_iter().map(|version| {
            let version = Version(version);
            // One that cannot be read has been told of; its space is worth having all the same.
            let size = self.entry(version, "").map_or(0, |(_, entry)| entry.size());
            (version, size)
        });
        sized.collect()
    }

    /// Versions that were deleted. What cannot be read is told and left out.
    pub(crate) fn deletions(&self, limit: usize) -> Vec<Deletion> {
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < limit {
            let wanted = limit - found.len();
            let versions = self.index.read().deleted(after, wanted);
            let Some(last) = versions.last() else { break };
            after = Some(*last);
            let ended = versions.len() < wanted;
            found.extend(versions.into_iter().filter_map(|v| self.deletion(v)));
            if ended {
                break;
            }
        }
        found
    }

    fn deletion(&self, version: u64) -> Option<Deletion> {
        let (no, job, here, runs) = self.index.read().deletion(version)?;
        let key = if let Some(key) = here {
            key
        } else {
            let stored = settle::stored(&runs, no, version);
            match stored.map_err(|e| self.unread(e, Some(no), "", version)) {
                Ok(Some(Stored::Deleted(key))) => key,
                _ => return None,
            }
        };
        Some(Deletion {
            job,
            key: key.to_string(),
            version: Version(version),
        })
    }

    /// Who still needs bytes of log file `file`: owner, job and extent. Only the thread that applies
    /// operations asks; what cannot be read stays where it is.
    pub(crate) fn owners_in_log(&self, file: u32) -> Vec<(Owner, JobNo, Extent)> {
        let (mut found, jobs) = {
            let index = self.index.read();
            (index.owners_here(file), index.jobs())
        };
        let inside = |extent: &&Extent| matches!(extent, Extent::Log { file: f, .. } if *f == file);
        for job in jobs {
            let Some(runs) = self.index.read().runs(job) else {
                continue;
            };
            let mut versions = BTreeSet::new();
            for run in runs.iter() {
                let points =
                    |logs: runs::Logs| logs.is_some_and(|(low, high)| (low..=high).contains(&file));
                let scanned = run.scan(points, |record| {
                    if points(record.logs) {
                        versions.insert(record.version);
                    }
                    Ok::<(), RunError>(())
                });
                if let Err(error) = scanned {
                    self.tell(&error, Some(job), "", 0);
                }
            }
            for version in versions {
                // Here already, or another run says that it moved.
                let held = self.index.read().held(version);
                let Some(Held::Runs(job, _, runs)) = held else {
                    continue;
                };
                let Ok(entry) = settle::entry(&runs, job, version) else {
                    continue;
                };
                let extents = entry.body().into_iter().flat_map(|body| body.iter());
                let extents = extents.filter(inside);
                found.extend(extents.map(|e| (Owner::Object(version), job, *e)));
            }
        }
        found
    }

    /// Segments, and first and last bytes in them, of everything that somebody needs in `segments`:
    /// nobody writes to those. `None` if that cannot be told.
    pub(crate) fn places_in(&self, segments: &BTreeSet<u32>) -> Option<Vec<(u32, u64, u64)>> {
        let wanted = |segment: u32| segments.contains(&segment);
        let (mut places, touched, jobs) = {
            let index = self.index.read();
            let jobs = index.jobs().into_iter();
            let jobs = jobs.filter_map(|job| Some((job, index.runs(job)?, index.living(job)?)));
            let jobs: Vec<_> = jobs.collect();
            (index.places_here(wanted), index.touched(), jobs)
        };
        for (job, runs, living) in jobs {
            for run in runs.iter() {
                let scanned = run.scan(
                    |_| true,
                    |record| {
                        let version = record.version;
                        if !living.lives(version) || touched.contains(&version) {
                            return Ok(());
                        }
                        let stored = Stored::decode(job, record.payload);
                        let inside = match stored.map_err(|_| run.damaged(0))? {
                            Stored::Live(entry) => self.places_of(&entry, wanted),
                            Stored::Deleted(_) => Vec::new(),
                        };
                        if inside.is_empty() {
                            return Ok(());
                        }
                        // A newer run may say that its bytes were released.
                        let newest = settle::entry(&runs, job, version)?;
                        if newest.body().is_some() {
                            places.extend(inside);
                        }
                        Ok::<(), RunError>(())
                    },
                );
                if let Err(error) = scanned {
                    self.tell(&error, Some(job), "", 0);
                    return None;
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        Some(places)
    }

    fn places_of(&self, entry: &Entry, wanted: impl Fn(u32) -> bool) -> Vec<(u32, u64, u64)> {
        let extents = entry.body().into_iter().flat_map(|body| body.iter());
        let space = &self.index.read().space;
        let places = extents.filter_map(|extent| space.place(*extent));
        places.filter(|(segment, ..)| wanted(*segment)).collect()
    }

    /// What to say of a part of the index that could not be read; damage is told, too.
    pub(crate) fn unread(
        &self,
        error: RunError,
        job: Option<JobNo>,
        key: &str,
        version: u64,
    ) -> Error {
        match error.source {
            Some(source) => Error::Io {
                what: format!("read {}", error.path.display()),
                source,
            },
            None => Error::Damaged(Box::new(self.tell(&error, job, key, version))),
        }
    }

    /// Tells of damage to the index.
    pub(crate) fn tell(
        &self,
        error: &RunError,
        job: Option<JobNo>,
        key: &str,
        version: u64,
    ) -> Damage {
        let id = job.and_then(|job| self.index.read().job_id(job));
        let damage = Damage {
            job: id.map(|id| id.to_string()).unwrap_or_default(),
            key: key.to_owned(),
            version,
            place: error.place(),
        };
        tracing::error!(place = damage.place, "the index on the disk is damaged");
        if let Some(witness) = self.witness.get() {
            witness(&damage);
        }
        damage
    }
}

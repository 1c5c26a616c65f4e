//! Removing objects from the box. What has reached the cloud stays there.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use serde::Serialize;
use std::time::Duration;

use crate::client::BoxClient;
use crate::list::Listed;
use crate::progress::Progress;
use crate::retry::{Patience, S3Error, persist};

/// Names in one request at the most; S3's own limit.
const MAX_NAMES: usize = 1000;

/// What one removal achieved.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RemoveReport {
    /// Keys of objects that the box holds no more.
    pub removed: Vec<String>,
    /// Objects that it still holds.
    pub failed: Vec<NotRemoved>,
}

impl RemoveReport {
    /// Adds names that mean nothing on the box.
    pub fn absent(&mut self, names: Vec<String>) {
        let reason = "the box does not hold it";
        self.failed.extend(names.into_iter().map(|key| NotRemoved {
            key,
            reason: reason.to_owned(),
        }));
    }
}

/// An object that could not be removed.
#[derive(Clone, Debug, Serialize)]
pub struct NotRemoved {
    /// Its key.
    pub key: String,
    /// What the box says.
    pub reason: String,
}

impl BoxClient {
    /// The objects that `names` mean, by key, and the names that mean nothing: a key means the
    /// object, a key with `/` at its end everything below that folder.
    ///
    /// # Errors
    ///
    /// [`S3Error`].
    pub async fn select(
        &self,
        names: &[String],
        patience: Duration,
    ) -> Result<(Vec<Listed>, Vec<String>), S3Error> {
        let (mut objects, mut absent) = (Vec::new(), Vec::new());
        for name in names {
            let listed = self.list(name, patience).await?;
            let before = objects.len();
            let meant = |object: &Listed| name.ends_with('/') || object.key == *name;
            objects.extend(listed.into_iter().filter(meant));
            if objects.len() == before {
                absent.push(name.clone());
            }
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects.dedup_by(|a, b| a.key == b.key);
        Ok((objects, absent))
    }

    /// Removes `objects` from the box, each only as it was listed: one that was replaced since
    /// stays, and is in the report.
    ///
    /// # Errors
    ///
    /// [`S3Error`] where the box does not answer; an object that it refuses to remove is in the
    /// report.
    pub async fn remove(
        &self,
        objects: &[Listed],
        patience: Duration,
    ) -> Result<RemoveReport, S3Error> {
        let patience = Patience::for_bytes(patience, 0);
        let progress = Progress::default();
        let mut report = RemoveReport::default();
        for objects in objects.chunks(MAX_NAMES) {
            let names = objects.iter().map(name).collect::<Result<Vec<_>, _>>()?;
            let answer = persist(patience, &progress, || async {
                let delete = Delete::builder()
                    .set_objects(Some(names.clone()))
                    .build()
                    .map_err(|e| S3Error::malformed(&e.to_string()))?;
                let request = self.s3().delete_objects();
                Ok(request
                    .bucket(&self.ticket().bucket)
                    .delete(delete)
                    .send()
                    .await?)
            })
            .await?;
            let removed = answer.deleted.into_iter().flatten();
            report.removed.extend(removed.filter_map(|d| d.key));
            for error in answer.errors.into_iter().flatten() {
                let code = error.code.unwrap_or_else(|| "an error".to_owned());
                report.failed.push(NotRemoved {
                    key: error.key.unwrap_or_default(),
                    reason: match error.message {
                        Some(message) => format!("the box answers {code}: {message}"),
                        None => format!("the box answers {code}"),
                    },
                });
            }
        }
        Ok(report)
    }
}

fn name(object: &Listed) -> Result<ObjectIdentifier, S3Error> {
    let tag = Some(object.etag.clone()).filter(|tag| !tag.is_empty());
    ObjectIdentifier::builder()
        .key(&object.key)
        .set_e_tag(tag.map(|tag| format!("\"{tag}\"")))
        .build()
        .map_err(|e| S3Error::malformed(&e.to_string()))
}

//! What is on the box: lists for people, and the check of what the journal remembers.

use std::collections::HashMap;

use aws_sdk_s3::types::Object;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use longhaul_protocol::lan::Delivery;
use serde::Serialize;

use crate::client::BoxClient;
use crate::journal::{Done, Origin};
use crate::plan::Planned;
use crate::progress::Progress;
use crate::push::{Sender, etag};
use crate::retry::{Patience, S3Error, persist};

/// With fewer remembered files than this, each is asked for by itself instead of listing.
const FEW: usize = 100;

/// An object on the box.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The tag that the box gave it.
    pub etag: String,
    /// When it was put, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// How far the box has carried it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

impl Listed {
    fn of(object: &Object) -> Option<Self> {
        Some(Self {
            key: object.key()?.to_owned(),
            size: u64::try_from(object.size()?).ok()?,
            etag: etag(object.e_tag()).unwrap_or_default(),
            modified: object.last_modified().map(ToString::to_string),
            delivery: None,
        })
    }
}

impl BoxClient {
    /// The objects of the ticket's bucket whose key begins with `prefix`, by key.
    ///
    /// # Errors
    ///
    /// [`S3Error`].
    pub async fn list(
        &self,
        prefix: &str,
        patience: std::time::Duration,
    ) -> Result<Vec<Listed>, S3Error> {
        list(
            self,
            prefix,
            Patience::for_bytes(patience, 0),
            &Progress::default(),
        )
        .await
    }

    /// Asks for one object's name, which proves that the box accepts the ticket's key.
    ///
    /// # Errors
    ///
    /// [`S3Error`].
    pub async fn check_credentials(&self) -> Result<(), S3Error> {
        let request = self.s3().list_objects_v2();
        request
            .bucket(&self.ticket().bucket)
            .max_keys(1)
            .send()
            .await?;
        Ok(())
    }
}

pub(crate) async fn list(
    client: &BoxClient,
    prefix: &str,
    patience: Patience,
    progress: &Progress,
) -> Result<Vec<Listed>, S3Error> {
    let mut objects = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = persist(patience, progress, || async {
            let request = client.s3().list_objects_v2();
            Ok(request
                .bucket(&client.ticket().bucket)
                .prefix(prefix)
                .set_continuation_token(token.clone())
                .send()
                .await?)
        })
        .await?;
        let before = objects.len();
        objects.extend(page.contents().iter().filter_map(Listed::of));
        token.clone_from(&page.next_continuation_token);
        if page.is_truncated() != Some(true) || token.is_none() || objects.len() == before {
            return Ok(objects);
        }
    }
}

/// The files, by their place in the plan, that the journal remembers and the box still holds.
pub(crate) async fn confirm(
    sender: &Sender<'_>,
    files: &[Planned],
) -> Result<HashMap<usize, Done>, S3Error> {
    if sender.journal.is_empty() {
        return Ok(HashMap::new());
    }
    let remembered: Vec<(usize, &Planned, Done)> = files
        .iter()
        .enumerate()
        .filter_map(|(index, file)| {
            let origin = Origin::new(&file.path, file.stamp);
            let done = sender.journal.done(&file.key, &origin)?;
            Some((index, file, done))
        })
        .collect();
    if remembered.is_empty() {
        return Ok(HashMap::new());
    }
    let held = if remembered.len() < FEW {
        heads(sender, &remembered).await?
    } else {
        let prefix = common_prefix(remembered.iter().map(|(_, file, _)| file.key.as_str()));
        let listed = list(sender.client, prefix, sender.patience(0), &sender.progress).await?;
        let mut held: HashMap<_, _> = listed
            .into_iter()
            .map(|l| (l.key, (l.size, l.etag)))
            .collect();
        // A list may leave tags out; then each object is asked for.
        let untagged = |file: &Planned| {
            let held = held.get(file.key.as_str());
            held.is_some_and(|(size, etag)| *size == file.size() && etag.is_empty())
        };
        let untagged: Vec<_> = remembered
            .iter()
            .filter(|(_, file, _)| untagged(file))
            .cloned()
            .collect();
        held.extend(heads(sender, &untagged).await?);
        held
    };
    let is_held = |file: &Planned, done: &Done| {
        held.get(file.key.as_str())
            .is_some_and(|(size, etag)| *size == file.size() && *etag == done.etag)
    };
    Ok(remembered
        .into_iter()
        .filter(|(_, file, done)| is_held(file, done))
        .map(|(index, _, done)| (index, done))
        .collect())
}

/// Size and tag of each object that the box holds.
async fn heads(
    sender: &Sender<'_>,
    remembered: &[(usize, &Planned, Done)],
) -> Result<HashMap<String, (u64, String)>, S3Error> {
    let head = |key: String| async move {
        let answer = persist(sender.patience(0), &sender.progress, || async {
            let request = sender.client.s3().head_object();
            Ok(request
                .bucket(&sender.client.ticket().bucket)
                .key(&key)
                .send()
                .await?)
        })
        .await;
        match answer {
            Ok(head) => {
                let size = head.content_length().and_then(|s| u64::try_from(s).ok());
                let etag = etag(head.e_tag()).ok();
                Ok(size.zip(etag).map(|held| (key, held)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let keys: Vec<String> = remembered
        .iter()
        .map(|(_, file, _)| file.key.to_string())
        .collect();
    stream::iter(keys.into_iter().map(head))
        .buffer_unordered(sender.options.files_at_once.max(1))
        .try_filter_map(|held| async move { Ok(held) })
        .try_collect()
        .await
}

/// The longest beginning that all keys share, cut at a character.
fn common_prefix<'a>(mut keys: impl Iterator<Item = &'a str>) -> &'a str {
    let Some(mut prefix) = keys.next() else {
        return "";
    };
    for key in keys {
        let same = prefix
            .char_indices()
            .zip(key.chars())
            .find(|((_, ours), theirs)| ours != theirs)
            .map_or(prefix.len().min(key.len()), |((at, _), _)| at);
        prefix = &prefix[..same];
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_begins_with_the_common_prefix(keys in proptest::collection::vec("[abä]{0,6}", 1..6)) {
            let prefix = common_prefix(keys.iter().map(String::as_str));

            prop_assert!(keys.iter().all(|key| key.starts_with(prefix)));
            let longer = keys[0][prefix.len()..].chars().next().map(|c| format!("{prefix}{c}"));
            if let Some(longer) = longer {
                prop_assert!(!keys.iter().all(|key| key.starts_with(&longer)));
            }
        }
    }
}

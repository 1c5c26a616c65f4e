//! Multipart uploads that nobody will finish: they cost money, and no listing shows them.

use super::{Fleet, FleetError};
use crate::store::uploads::{upload_buckets, upload_is_open};

impl Fleet {
    /// Aborts multipart uploads that no open upload of the database owns and that began longer ago
    /// than `older_than_ms`: a younger one may have been begun a moment ago.
    pub async fn orphans_free(&self, older_than_ms: i64) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().read().await?;
        let buckets = upload_buckets(&mut tx).await?;
        drop(tx);
        for bucket in buckets {
            let unfinished = match self.buckets().unfinished(&bucket).await {
                Ok(unfinished) => unfinished,
                Err(error) if error.is_absent() => continue,
                Err(error) => return Err(error.into()),
            };
            for upload in unfinished {
                if now.millis_since(upload.begun) < older_than_ms {
                    continue;
                }
                let mut tx = self.db().read().await?;
                let open = upload_is_open(&mut tx, &upload.id).await?;
                drop(tx);
                if !open {
                    tracing::info!(bucket, key = upload.key, "aborting an orphaned upload");
                    self.buckets()
                        .multipart_abort(&bucket, &upload.key, &upload.id)
                        .await?;
                }
            }
        }
        Ok(())
    }
}

//! Objects in the bucket, as operators see them.

use longhaul_protocol::ids::ObjectKey;
use serde_json::json;

use super::{Actor, Fleet, FleetError, ObjectPage, ObjectQuery, OpenObject, audit};
use crate::objects::bucket::{BucketError, PROBES};
use crate::objects::names::check_bucket;
use crate::store::objects::object_delete;

impl Fleet {
    /// Buckets that exist.
    pub async fn buckets_list(&self) -> Result<Vec<String>, FleetError> {
        let mut names = self.buckets().list_buckets().await?;
        names.retain(|name| !self.buckets().is_reserved(name));
        Ok(names)
    }

    /// Objects as the bucket has them.
    pub async fn objects_list(&self, query: &ObjectQuery) -> Result<ObjectPage, FleetError> {
        check_bucket(&query.bucket).map_err(FleetError::invalid)?;
        let mut page = self.buckets().list(query).await?;
        // There for a moment, while the bucket is tried out.
        page.objects
            .retain(|object| !object.key.starts_with(PROBES));
        page.prefixes.retain(|prefix| prefix != PROBES);
        Ok(page)
    }

    /// Opens an object for reading.
    pub async fn object_open(
        &self,
        bucket: &str,
        key: &ObjectKey,
    ) -> Result<OpenObject, FleetError> {
        check_bucket(bucket).map_err(FleetError::invalid)?;
        self.buckets()
            .open(bucket, key.as_str())
            .await?
            .ok_or_else(|| FleetError::not_found(format!("no object {key} in bucket {bucket}")))
    }

    /// Deletes an object from the bucket.
    pub async fn object_delete(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &ObjectKey,
    ) -> Result<(), FleetError> {
        check_bucket(bucket).map_err(FleetError::invalid)?;
        let now = self.now();
        // Taken down first: a deed without its entry is worse than an entry whose deed failed.
        let mut tx = self.db().write().await?;
        let what = json!({ "bucket": bucket, "key": key });
        audit(&mut tx, actor, "object.delete", bucket, what, now).await?;
        tx.commit().await?;
        self.buckets().delete(bucket, key.as_str()).await?;
        let mut tx = self.db().write().await?;
        object_delete(&mut tx, bucket, key).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl From<BucketError> for FleetError {
    fn from(error: BucketError) -> Self {
        Self::unavailable("the object store failed").with_source(error)
    }
}

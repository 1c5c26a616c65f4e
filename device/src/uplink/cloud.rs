//! The cloud as the uplink sees it: seven questions, and whether asking again may help.

use futures::future::BoxFuture;
use longhaul_protocol::upload::{
    ABORT_PATH, AbortUploads, BUCKET_REFUSED_PATH, BucketRefused, BucketState, COMPLETE_PATH,
    CompleteUploads, Completed, PACK_SENT_PATH, PACK_START_PATH, PARTS_PATH, PackCompleted,
    PackSent, PackStarted, PartUrls, PartUrlsRequest, START_PATH, StartPack, StartUploads, Started,
};

use crate::cloud::{CloudClient, CloudError, chain};

/// Why the cloud did not answer as it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AskError {
    /// The way to it, or a fault on its side: worth asking again.
    #[error("{0}")]
    Later(String),
    /// It does not take this request, however often it comes.
    #[error("{0}")]
    Refused(String),
}

/// Who hands out presigned URLs and compares what arrived.
pub trait Cloud: Send + Sync {
    /// Begins uploads, or finds those that were begun.
    fn start(&self, request: StartUploads) -> BoxFuture<'_, Result<Started, AskError>>;
    /// Signs the URLs of parts.
    fn parts(&self, request: PartUrlsRequest) -> BoxFuture<'_, Result<PartUrls, AskError>>;
    /// Completes uploads and compares.
    fn complete(&self, request: CompleteUploads) -> BoxFuture<'_, Result<Completed, AskError>>;
    /// Begins a pack of small objects.
    fn start_pack(&self, request: StartPack) -> BoxFuture<'_, Result<PackStarted, AskError>>;
    /// Has a pack taken apart.
    fn pack_sent(&self, request: PackSent) -> BoxFuture<'_, Result<PackCompleted, AskError>>;
    /// Has the cloud find out whether a bucket refuses everything.
    fn refused(&self, request: BucketRefused) -> BoxFuture<'_, Result<BucketState, AskError>>;
    /// Gives uploads up.
    fn abort(&self, request: AbortUploads) -> BoxFuture<'_, Result<(), AskError>>;
}

impl From<CloudError> for AskError {
    fn from(error: CloudError) -> Self {
        let text = chain(&error);
        match &error {
            // Who the box is and whether it may is settled elsewhere, and may change: only what
            // is wrong with the request itself stays wrong.
            CloudError::Refused { problem, .. }
                if matches!(problem.status, 400 | 404 | 409 | 413 | 422) =>
            {
                Self::Refused(text)
            }
            _ => Self::Later(text),
        }
    }
}

impl Cloud for CloudClient {
    fn start(&self, request: StartUploads) -> BoxFuture<'_, Result<Started, AskError>> {
        Box::pin(async move { Ok(self.post(START_PATH, &request).await?) })
    }

    fn parts(&self, request: PartUrlsRequest) -> BoxFuture<'_, Result<PartUrls, AskError>> {
        Box::pin(async move { Ok(self.post(PARTS_PATH, &request).await?) })
    }

    fn complete(&self, request: CompleteUploads) -> BoxFuture<'_, Result<Completed, AskError>> {
        Box::pin(async move { Ok(self.post(COMPLETE_PATH, &request).await?) })
    }

    fn start_pack(&self, request: StartPack) -> BoxFuture<'_, Result<PackStarted, AskError>> {
        Box::pin(async move { Ok(self.post(PACK_START_PATH, &request).await?) })
    }

    fn pack_sent(&self, request: PackSent) -> BoxFuture<'_, Result<PackCompleted, AskError>> {
        Box::pin(async move { Ok(self.post(PACK_SENT_PATH, &request).await?) })
    }

    fn refused(&self, request: BucketRefused) -> BoxFuture<'_, Result<BucketState, AskError>> {
        Box::pin(async move { Ok(self.post(BUCKET_REFUSED_PATH, &request).await?) })
    }

    fn abort(&self, request: AbortUploads) -> BoxFuture<'_, Result<(), AskError>> {
        Box::pin(async move { Ok(self.post(ABORT_PATH, &request).await?) })
    }
}

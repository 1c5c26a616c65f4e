//! Whole objects, in S3.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use futures::Stream;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    Metadata, PutObjectInput, PutObjectOutput, StreamingBlob,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::checking;
use super::{DiskS3, answer, attributes, from_http_date, timestamp};

impl DiskS3 {
    pub(super) async fn object_put(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let mut checking = checking!(input)?;
        let only_new = match &input.if_none_match {
            None => false,
            Some(ETagCondition::Any) => true,
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(NotImplemented, "If-None-Match takes only *"));
            }
        };
        if input.if_match.is_some() {
            return Err(s3_error!(
                NotImplemented,
                "If-Match is not supported on PUT"
            ));
        }
        self.bucket_must_exist(&input.bucket).await?;
        let attributes = attributes!(input);
        let incoming = match input.body {
            Some(body) => {
                self.store
                    .receive(body, |bytes| checking.update(bytes))
                    .await
            }
            None => self.store.receive(nothing(), |_| ()).await,
        }
        .map_err(answer)?;
        checking.verify(req.trailing_headers.as_ref())?;
        let now = self.clock.now();
        let written = self
            .store
            .put(
                &input.bucket,
                &input.key,
                incoming,
                attributes,
                only_new,
                now,
            )
            .await
            .map_err(answer)?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(written.etag)),
            ..PutObjectOutput::default()
        }))
    }

    pub(super) async fn object_get(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let head = self
            .store
            .head(&input.bucket, &input.key)
            .await
            .map_err(answer)?;
        conditions(
            &head.etag,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let (span, content_range) = match input.range {
            None => (0..head.bytes, None),
            Some(range) => {
                let span = range.check(head.bytes)?;
                let text = format!("bytes {}-{}/{}", span.start, span.end - 1, head.bytes);
                (span, Some(text))
            }
        };
        let length = span.end - span.start;
        let body = self
            .store
            .read(&head, span.start, length)
            .await
            .map_err(answer)?;
        let attributes = head.attributes;
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(Exclusive::new(body))),
            content_length: i64::try_from(length).ok(),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(timestamp(head.modified)),
            e_tag: Some(ETag::Strong(head.etag)),
            content_type: input.response_content_type.or(attributes.content_type),
            content_encoding: attributes.content_encoding,
            content_disposition: input
                .response_content_disposition
                .or(attributes.content_disposition),
            cache_control: attributes.cache_control,
            content_language: attributes.content_language,
            expires: attributes.expires.as_deref().and_then(from_http_date),
            metadata: metadata(attributes.metadata),
            ..GetObjectOutput::default()
        }))
    }

    pub(super) async fn object_head(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let head = self
            .store
            .head(&input.bucket, &input.key)
            .await
            .map_err(answer)?;
        conditions(
            &head.etag,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let attributes = head.attributes;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(head.bytes).ok(),
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(timestamp(head.modified)),
            e_tag: Some(ETag::Strong(head.etag)),
            content_type: attributes.content_type,
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            cache_control: attributes.cache_control,
            content_language: attributes.content_language,
            expires: attributes.expires.as_deref().and_then(from_http_date),
            metadata: metadata(attributes.metadata),
            ..HeadObjectOutput::default()
        }))
    }

    pub(super) async fn object_delete(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store
            .delete(&req.input.bucket, &req.input.key)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn object_delete_many(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            self.store
                .delete(&req.input.bucket, &object.key)
                .await
                .map_err(answer)?;
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            });
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            ..DeleteObjectsOutput::default()
        }))
    }
}

fn conditions(
    etag: &str,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(asked) => asked.value() == etag,
    };
    if if_match.is_some_and(|c| !is(c)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

fn metadata(pairs: std::collections::BTreeMap<String, String>) -> Option<Metadata> {
    Some(pairs.into_iter().collect::<Metadata>()).filter(|m| !m.is_empty())
}

fn nothing() -> impl Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send {
    futures::stream::empty()
}

/// Makes a stream `Sync` that is only ever polled by its owner, as `s3s` wants it.
struct Exclusive<S>(Mutex<Pin<Box<S>>>);

impl<S> Exclusive<S> {
    fn new(stream: S) -> Self {
        Self(Mutex::new(Box::pin(stream)))
    }
}

impl<S: Stream> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let inner = match self.0.get_mut() {
            Ok(inner) => inner,
            Err(poisoned) => poisoned.into_inner(),
        };
        inner.as_mut().poll_next(cx)
    }
}

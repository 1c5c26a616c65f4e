//! Multipart uploads into the vault.

use std::sync::Arc;

use super::{Vault, check_key};
use crate::{
    Checksums, Commit, Condition, Error, JobId, Metadata, ObjectInfo, Page, PartInfo, PartNumber,
    PartReader, PartWriter, UploadId, UploadInfo,
    codec::encode_detail,
    crypto::random,
    index::Outcome,
    keyring::JobNo,
    op::Op,
    writer::{Sink, check_detail},
};

impl Vault {
    /// Creates a multipart upload. `checksums` is kept with it and given back, nothing more.
    #[expect(clippy::needless_pass_by_value, reason = "taken like everywhere else")]
    pub fn create_upload(
        &self,
        job: &JobId,
        key: &str,
        metadata: Metadata,
        checksums: Checksums,
    ) -> Commit<UploadId> {
        let detail = encode_detail(&metadata, &checksums);
        let checked = check_key(key)
            .and_then(|()| check_detail(&detail))
            .and_then(|()| self.core().admit())
            .and_then(|()| self.core().job(job));
        let number = match checked {
            Ok(number) => number,
            Err(error) => return Commit::ready(Err(error)),
        };
        let (id, now) = (UploadId(random()), (self.core().clock)());
        let op = Op::CreateUpload {
            id,
            key: key.to_owned(),
            detail,
            now,
        };
        self.core()
            .submit_plain(number, op, |outcome| match outcome {
                Outcome::Upload(id) => Some(id),
                _ => None,
            })
    }

    /// One open upload.
    pub fn upload(&self, upload: &UploadId) -> Result<UploadInfo, Error> {
        self.core()
            .index
            .read()
            .upload(*upload)
            .map(|(info, _)| info)
    }

    /// At most `limit` open uploads of `job` whose keys begin with `prefix`, in order of key and
    /// identifier, behind `start_after`.
    pub fn uploads(
        &self,
        job: &JobId,
        prefix: &str,
        start_after: Option<(&str, Option<UploadId>)>,
        limit: usize,
    ) -> Result<Page<UploadInfo>, Error> {
        let number = self.core().job(job)?;
        self.core()
            .index
            .read()
            .uploads(number, prefix, start_after, limit)
    }

    /// Begins a part; when finished, it replaces an earlier one of the same number.
    pub fn begin_part(&self, upload: &UploadId, number: PartNumber) -> Result<PartWriter, Error> {
        self.begin_sized_part(upload, number, 0)
    }

    /// Like [`Vault::begin_part`], for a part whose length in bytes is known: then the BLAKE3 of
    /// the object will be known without reading it again.
    pub fn begin_sized_part(
        &self,
        upload: &UploadId,
        number: PartNumber,
        len: u64,
    ) -> Result<PartWriter, Error> {
        let job = self.job_of_upload(upload)?;
        let base = self.core().guess_base(*upload, number, len);
        let sink = Sink::new(Arc::clone(self.core()), job, Some(base))?;
        Ok(PartWriter::new(sink, *upload, number))
    }

    /// At most `limit` parts of an upload with numbers above `after`.
    pub fn parts(
        &self,
        upload: &UploadId,
        after: Option<PartNumber>,
        limit: usize,
    ) -> Result<Page<PartInfo>, Error> {
        self.core().index.read().parts(*upload, after, limit)
    }

    /// Reads one part of an open upload.
    pub fn read_part(&self, upload: &UploadId, number: PartNumber) -> Result<PartReader, Error> {
        let opened = self.core().index.read().open_part(*upload, number);
        let (info, job, body) = opened.ok_or(Error::InvalidPart(number))?;
        Ok(PartReader::new(
            Arc::clone(self.core()),
            &info,
            job,
            number,
            body,
        ))
    }

    /// Makes the named parts, in this order, the new version of the object. No byte is copied.
    pub fn complete_upload(
        &self,
        upload: &UploadId,
        parts: Vec<(PartNumber, String)>,
        checksums: Checksums,
        condition: Condition,
    ) -> Commit<ObjectInfo> {
        let detail = encode_detail(&Metadata::default(), &checksums);
        let job = match check_detail(&detail).and_then(|()| self.job_of_upload(upload)) {
            Ok(job) => job,
            Err(error) => return Commit::ready(Err(error)),
        };
        let parts = parts
            .into_iter()
            .map(|(number, etag)| (number.get(), etag))
            .collect();
        let now = (self.core().clock)();
        let op = Op::Complete {
            upload: *upload,
            parts,
            checksums,
            condition,
            now,
        };
        self.core().submit_plain(job, op, |outcome| match outcome {
            Outcome::Object(info) => Some(*info),
            _ => None,
        })
    }

    /// Forgets an upload and its parts.
    pub fn abort_upload(&self, upload: &UploadId) -> Commit<()> {
        match self.job_of_upload(upload) {
            Ok(job) => self
                .core()
                .submit_plain(job, Op::Abort { upload: *upload }, |_| Some(())),
            Err(error) => Commit::ready(Err(error)),
        }
    }

    fn job_of_upload(&self, upload: &UploadId) -> Result<JobNo, Error> {
        self.core().index.read().upload(*upload).map(|(_, job)| job)
    }
}

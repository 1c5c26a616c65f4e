//! Multipart uploads: parts become durable one by one, completing them copies no byte.

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::lan::SIZE_HEADER;
use longhaul_protocol::names::Clash;
use longhaul_vault::{
    Checksums, Error as VaultError, JobId, ObjectInfo, PartInfo, PartNumber, UploadId, UploadInfo,
};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::body::{self, Lane};
use super::checksum::{Algorithm, Promise};
use super::error::from_vault;
use super::names::Fresh;
use super::put::{Described, give_checksums};
use super::refuse::refuse_unsupported;
use super::retrieval::checksum_type;
use super::service::Store;
use super::whole::whole_checksums;
use super::{layout, names, notice, refuse, room, snowball, spellings};

/// Under which name an upload keeps the algorithm and the type of checksum that its client chose.
const CHOSEN_ALGORITHM: &str = "algorithm";
pub(super) const CHOSEN_TYPE: &str = "type";
/// Parts of one upload at the most; S3's own limit.
const MAX_PARTS: usize = 10_000;
/// Every part but the last has at least this many bytes; S3's own limit.
const MIN_PART_BYTES: u64 = 5 << 20;

impl Store {
    pub(super) async fn create_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let credential = Self::admitted(&request)?;
        let size = request.headers.get(SIZE_HEADER);
        let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
        let input = request.input;
        let kind = checksum_kind(&input)?;
        let job = names::job(&input.bucket)?;
        let Fresh { key, notice, .. } = if snowball::wanted(input.metadata.as_ref()) {
            let key = names::key(&input.key)?;
            Fresh {
                key,
                notice: None,
                claim: None,
            }
        } else {
            names::fresh(&self.vault, &self.spellings, &job, &input.key)?
        };
        let what = format!("upload of {:?}", key.as_str());
        room::check(&self.vault, size, &what)?;
        refuse_unsupported!(input);
        let class = refuse::storage_class(input.storage_class.as_ref())?;
        let metadata = Described {
            content_type: input.content_type,
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            expires: input.expires,
            user: input.metadata,
        }
        .metadata(&credential);
        refuse::metadata(&metadata)?;
        let mut chosen = Checksums::new();
        if let Some(algorithm) = &input.checksum_algorithm {
            let known = Algorithm::from_api_name(algorithm.as_str()).ok_or_else(|| {
                s3_error!(
                    InvalidRequest,
                    "checksum algorithm {:?} is not known",
                    algorithm.as_str()
                )
            })?;
            chosen.insert(CHOSEN_ALGORITHM.to_owned(), known.name().to_owned());
        }
        if let Some(kind) = &kind {
            chosen.insert(CHOSEN_TYPE.to_owned(), kind.as_str().to_owned());
        }
        let vault = &self.vault;
        let create = || vault.create_upload(&job, key.as_str(), metadata.clone(), chosen.clone());
        let created = match create().await {
            // A bucket exists as soon as a ticket names it.
            Err(VaultError::NoSuchJob(_)) => {
                vault
                    .create_job(&job)
                    .map_err(|error| from_vault(&error, &what))?;
                create().await
            }
            created => created,
        };
        let upload = created.map_err(|error| from_vault(&error, &what))?;
        let mut response = S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.to_string()),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: kind,
            ..CreateMultipartUploadOutput::default()
        });
        notice::add(&mut response.headers, notice.into_iter().chain(class));
        Ok(response)
    }

    /// The upload, if it is one of this bucket and key: an identifier alone opens nothing.
    pub(super) fn find_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> S3Result<(UploadId, UploadInfo)> {
        let none = || {
            s3_error!(
                NoSuchUpload,
                "there is no open upload {:?} of {key:?}; it was completed, aborted or never begun",
                id.chars().take(64).collect::<String>()
            )
        };
        let upload: UploadId = id.parse().map_err(|_| none())?;
        let info = self.vault.upload(&upload).map_err(|_| none())?;
        if info.job.as_str() != bucket || info.key != key {
            return Err(none());
        }
        Ok((upload, info))
    }

    pub(super) async fn put_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let promise = Promise::read(&request)?;
        let trailers = request.trailing_headers;
        let input = request.input;
        refuse::customer_keys(input.sse_customer_algorithm.as_deref())?;
        let number = part_number(input.part_number)?;
        let what = format!("part {number} of {:?}", input.key);
        let (upload, info) = self.find_upload(&input.bucket, &input.key, &input.upload_id)?;

        let _permit = self.body_permit().await?;
        let length = input.content_length.and_then(|n| u64::try_from(n).ok());
        let length = length.unwrap_or(0);
        let sink = match self.vault.begin_sized_part(&upload, number, length) {
            Ok(sink) => sink,
            Err(error) => {
                let part = (number, length);
                return Err(room::none_for_part(&self.vault, &upload, part, &error, &what).await);
            }
        };
        let lane = Lane {
            sink,
            hasher: promise.hasher_and(chosen_algorithm(&info)),
        };
        let mut lane = body::receive(input.body, lane, input.content_length, &what).await?;

        let trailers = trailers.and_then(|t| t.take());
        let crc64nvme = lane.sink.digests().crc64nvme;
        let checksums = promise.verify(lane.hasher, crc64nvme, trailers.as_ref())?;
        let part = lane
            .sink
            .finish(checksums)
            .await
            .map_err(|error| from_vault(&error, &what))?;
        let mut output = UploadPartOutput {
            e_tag: Some(ETag::Strong(part.etag)),
            ..UploadPartOutput::default()
        };
        give_checksums!(output, &part.checksums);
        Ok(S3Response::new(output))
    }

    pub(super) async fn complete_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let credential = Self::admitted(&request)?;
        let input = request.input;
        let what = format!("upload of {:?}", input.key);
        let found = self.find_upload(&input.bucket, &input.key, &input.upload_id);
        let (upload, info) = match found {
            Ok(found) => found,
            Err(error) => return self.completed_before(input).ok_or(error),
        };
        let condition = self.condition(
            &info.job,
            &info.key,
            input.if_match.clone(),
            input.if_none_match.clone(),
        )?;
        let named = input.multipart_upload.clone().and_then(|m| m.parts);
        let parts = self.chosen_parts(&upload, named.unwrap_or_default(), &what)?;
        let size: u64 = parts.iter().map(|part| part.digests.size).sum();
        if let Some(expected) = input.mpu_object_size
            && u64::try_from(expected) != Ok(size)
        {
            return Err(s3_error!(
                InvalidRequest,
                "{what}: the parts have {size} bytes, the client expects {expected}"
            ));
        }
        let mut checksums = whole_checksums(&input, &info, &parts, &what)?;
        if snowball::wanted(Some(&info.metadata.user)) {
            return self
                .complete_snowball(&input, &info, &parts, &credential)
                .await;
        }
        if let Some(part) = parts
            .iter()
            .rev()
            .skip(1)
            .find(|part| part.digests.size < MIN_PART_BYTES)
        {
            return Err(s3_error!(
                EntityTooSmall,
                "{what}: part {} has {} bytes; every part but the last needs at least {MIN_PART_BYTES}",
                part.number,
                part.digests.size
            ));
        }
        let key = names::key(&info.key)?;
        let (claim, written) = self.spellings.claim(&info.job, &key);
        let notice = self.odd(&info.job, &key, written);
        layout::keep(&mut checksums, &upload, &parts, chosen_algorithm(&info));
        let list = parts
            .into_iter()
            .map(|part| (part.number, part.etag))
            .collect();
        let object = self
            .vault
            .complete_upload(&upload, list, checksums, condition)
            .await
            .map_err(|error| from_vault(&error, &what))?;
        drop(claim);
        self.arrivals.ring();
        let mut response = completed(input, &object);
        notice::add(&mut response.headers, notice);
        Ok(response)
    }

    /// What is odd about the name of an upload that becomes an object: its bytes are here, so what
    /// was not there when it began is said, and keeps nobody from having them.
    fn odd(&self, job: &JobId, key: &ObjectKey, written: Option<ObjectKey>) -> Option<String> {
        let notice = match self.spellings.clash(&self.vault, job, key, written)? {
            (Clash::Normalization, other) => spellings::same(key, &other),
            (Clash::Case, other) => spellings::notice(key, &other),
        };
        self.spellings.tell(job, &notice);
        Some(notice)
    }

    /// The answer to a completion whose first answer was lost: the upload is gone, and the object is
    /// the one that it made.
    fn completed_before(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> Option<S3Response<CompleteMultipartUploadOutput>> {
        let object = self.look(&input.bucket, &input.key).ok()?;
        let named = input
            .multipart_upload
            .iter()
            .flat_map(|m| &m.parts)
            .flatten();
        let numbers = named.map(|part| part.part_number.and_then(|n| u32::try_from(n).ok()));
        // Who names other parts wants another object than the one that is there.
        let numbers = numbers.map(Option::unwrap_or_default);
        layout::made_by(&object, &input.upload_id, numbers).then(|| completed(input, &object))
    }

    /// The parts that the client names, as the vault has them.
    fn chosen_parts(
        &self,
        upload: &UploadId,
        named: Vec<CompletedPart>,
        what: &str,
    ) -> S3Result<Vec<PartInfo>> {
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "{what}: no parts are named"));
        }
        let held = self
            .vault
            .parts(upload, None, MAX_PARTS)
            .map_err(|error| from_vault(&error, what))?
            .items;
        let mut parts: Vec<PartInfo> = Vec::with_capacity(named.len());
        for named in named {
            let number = part_number(named.part_number.unwrap_or(0))?;
            if parts.last().is_some_and(|last| last.number >= number) {
                return Err(s3_error!(
                    InvalidPartOrder,
                    "{what}: parts must be named in rising order"
                ));
            }
            let at = held.binary_search_by_key(&number, |part| part.number);
            let part = at.ok().and_then(|at| held.get(at)).ok_or_else(|| {
                s3_error!(
                    InvalidPart,
                    "{what}: part {number} never arrived; send it, then complete again"
                )
            })?;
            if let Some(etag) = &named.e_tag
                && etag.value() != part.etag
            {
                return Err(s3_error!(
                    InvalidPart,
                    "{what}: part {number} has another ETag than the client says; send it again"
                ));
            }
            let sums = [
                ("crc32", &named.checksum_crc32),
                ("crc32c", &named.checksum_crc32c),
                ("crc64nvme", &named.checksum_crc64nvme),
                ("sha1", &named.checksum_sha1),
                ("sha256", &named.checksum_sha256),
            ];
            for (name, said) in sums {
                if let (Some(said), Some(kept)) = (said, part.checksums.get(name))
                    && said != kept
                {
                    return Err(s3_error!(
                        InvalidPart,
                        "{what}: {name} of part {number} is {kept}, the client says {said}"
                    ));
                }
            }
            parts.push(part.clone());
        }
        Ok(parts)
    }

    pub(super) async fn abort_upload(
        &self,
        input: &AbortMultipartUploadInput,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let (upload, _) = self.find_upload(&input.bucket, &input.key, &input.upload_id)?;
        self.vault
            .abort_upload(&upload)
            .await
            .map_err(|error| from_vault(&error, &format!("upload of {:?}", input.key)))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn completed(
    input: CompleteMultipartUploadInput,
    object: &ObjectInfo,
) -> S3Response<CompleteMultipartUploadOutput> {
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        checksum_type: Some(checksum_type(object)),
        ..CompleteMultipartUploadOutput::default()
    };
    give_checksums!(output, &object.checksums);
    S3Response::new(output)
}

/// What the checksum of the whole will speak of: what the client says, or what S3 takes when it
/// says nothing (S3 user guide, "Checking object integrity").
fn checksum_kind(input: &CreateMultipartUploadInput) -> S3Result<Option<ChecksumType>> {
    let Some(algorithm) = &input.checksum_algorithm else {
        return Ok(input.checksum_type.clone());
    };
    let (usual, other) = match algorithm.as_str() {
        ChecksumAlgorithm::CRC64NVME => (ChecksumType::FULL_OBJECT, None),
        ChecksumAlgorithm::SHA1 | ChecksumAlgorithm::SHA256 => (ChecksumType::COMPOSITE, None),
        _ => (ChecksumType::COMPOSITE, Some(ChecksumType::FULL_OBJECT)),
    };
    let asked = input
        .checksum_type
        .as_ref()
        .map_or(usual, |kind| kind.as_str());
    if asked != usual && Some(asked) != other {
        return Err(s3_error!(
            InvalidRequest,
            "checksum type {asked} is not possible with {}",
            algorithm.as_str()
        ));
    }
    Ok(Some(ChecksumType::from(asked.to_owned())))
}

/// The algorithm that the client chose when it began the upload.
pub(super) fn chosen_algorithm(info: &UploadInfo) -> Option<Algorithm> {
    let chosen = info.checksums.get(CHOSEN_ALGORITHM)?;
    Algorithm::ALL.into_iter().find(|a| a.name() == chosen)
}

pub(super) fn part_number(number: i32) -> S3Result<PartNumber> {
    u16::try_from(number)
        .ok()
        .and_then(PartNumber::new)
        .ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "part number {number}: 1 to 10,000 are possible"
            )
        })
}

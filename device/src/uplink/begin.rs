//! The first step of a version: what the cloud must know of it, and how it is to be sent.

use std::collections::BTreeMap;

use longhaul_protocol::upload::{KEPT_HEADERS, MAX_ITEMS, StartResult, StartUploads, UploadObject};
use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, ObjectInfo, Version};

use super::UplinkError;
use super::carry::{Asked, Carrier, Next};
use super::cloud::AskError;
use super::pack::choose;
use super::record::blake3;
use super::settle::identity;
use crate::clock;
use crate::intake::TICKET_HEADER;

impl Carrier {
    /// Asks the cloud how to send these versions.
    pub async fn start(&self, versions: &[Version]) -> Result<Asked, UplinkError> {
        let mut next = Vec::with_capacity(versions.len());
        let (mut infos, mut objects): (Vec<ObjectInfo>, Vec<UploadObject>) = <_>::default();
        for &version in versions {
            match self.describe(version).await? {
                Described::Object(info, object) => {
                    infos.push(*info);
                    objects.push(*object);
                }
                Described::Not(step) => next.push((version, step)),
            }
        }
        if objects.is_empty() {
            return Ok(Asked::Answered(next));
        }
        if self.gauge.lock().pays(clock::now().mono_ms) {
            let chosen = choose(&objects);
            if !chosen.is_empty() {
                let (packed, others): (Vec<_>, Vec<_>) = infos
                    .into_iter()
                    .zip(objects)
                    .enumerate()
                    .partition(|(at, _)| chosen.binary_search(at).is_ok());
                let apart = |pairs: Vec<(usize, (_, _))>| -> (Vec<_>, Vec<_>) {
                    pairs.into_iter().map(|(_, pair)| pair).unzip()
                };
                let (packed, others) = (apart(packed), apart(others));
                let versions: Vec<Version> = packed.0.iter().map(|info| info.version).collect();
                match self.start_pack(packed.0, packed.1).await? {
                    Ok(steps) => next.extend(steps),
                    Err(AskError::Refused(why)) => {
                        tracing::warn!(why, "the cloud takes no packs: objects go one by one");
                        self.gauge.lock().forbid(clock::now().mono_ms);
                        let again = |version| (version, Next::again(&why));
                        next.extend(versions.into_iter().map(again));
                    }
                    Err(error) => return Ok(Asked::Failed(error)),
                }
                (infos, objects) = others;
            }
        }
        while !objects.is_empty() {
            let rest = objects.split_off(objects.len().min(MAX_ITEMS));
            let rest_infos = infos.split_off(objects.len());
            let versions: Vec<Version> = infos.iter().map(|info| info.version).collect();
            match self.start_each(infos, objects).await? {
                Ok(steps) => next.extend(steps),
                Err(error) if next.is_empty() => return Ok(Asked::Failed(error)),
                // What was answered before is not asked again.
                Err(error) => {
                    let again = |version| (version, Next::again(error.to_string()));
                    next.extend(versions.into_iter().map(again));
                }
            }
            (infos, objects) = (rest_infos, rest);
        }
        Ok(Asked::Answered(next))
    }

    async fn start_each(
        &self,
        infos: Vec<ObjectInfo>,
        objects: Vec<UploadObject>,
    ) -> Result<Result<Vec<(Version, Next)>, AskError>, UplinkError> {
        let conditions = true;
        let request = StartUploads {
            objects,
            conditions,
        };
        let started = match self.parts.cloud.start(request).await {
            Ok(started) => started,
            Err(error) => return Ok(Err(error)),
        };
        if started.uploads.len() != infos.len() {
            return Ok(Err(AskError::Later(format!(
                "the cloud answered {} of {} objects",
                started.uploads.len(),
                infos.len()
            ))));
        }
        let steps = infos.into_iter().zip(started.uploads);
        let steps = steps.map(|(info, result)| self.begun(Box::new(info), result));
        Ok(Ok(futures::future::try_join_all(steps).await?))
    }

    async fn describe(&self, version: Version) -> Result<Described, UplinkError> {
        let info = match self.parts.vault.head_version(version) {
            Ok(info) if info.delivery.is_pending() => info,
            Ok(_) | Err(VaultError::NoSuchVersion(_)) => {
                return Ok(Described::Not(Next::Done));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(blake3) = blake3(&self.parts.vault, version).await? else {
            let next = if self.is_gone(version) {
                Next::Done
            } else {
                self.give_up(
                    &info,
                    "the box cannot read the bytes back: push the file again",
                )
                .await?
            };
            return Ok(Described::Not(next));
        };
        let ticket = info.metadata.headers.get(TICKET_HEADER);
        let ticket = ticket.and_then(|ticket| ticket.parse().ok());
        let (Some(ticket), Some(object)) = (ticket, identity(&info)) else {
            let next = self
                .give_up(&info, "the object carries no ticket: push the file again")
                .await?;
            return Ok(Described::Not(next));
        };
        let object = UploadObject {
            object,
            ticket,
            bytes: info.size,
            blake3,
            content_type: info.metadata.content_type.clone(),
            metadata: info.metadata.user.clone(),
            headers: kept(&info.metadata.headers),
        };
        Ok(Described::Object(Box::new(info), Box::new(object)))
    }

    /// Makes durable which upload carries the version, before a byte of it is sent.
    pub(super) async fn begun(
        &self,
        info: Box<ObjectInfo>,
        result: StartResult,
    ) -> Result<(Version, Next), UplinkError> {
        let version = info.version;
        let upload = match &result {
            StartResult::Verified { upload } => {
                let next = self.settle(&info, upload).await?;
                return Ok((version, next));
            }
            StartResult::Refused { reason } => {
                return Ok((version, self.give_up(&info, reason).await?));
            }
            StartResult::Later { reason, held } => {
                let next = self.later(&info, reason.clone(), *held).await?;
                return Ok((version, next));
            }
            StartResult::Packed { .. } => {
                return Ok((version, Next::again("the cloud awaits a pack")));
            }
            StartResult::Single { upload, .. } | StartResult::Multipart { upload, .. } => upload,
        };
        let wanted = matches!(result, StartResult::Multipart { .. });
        let known = match &info.delivery {
            Delivery::InFlight { upload: known, .. } => *known == upload.to_string(),
            Delivery::OnBox => !wanted,
            _ => false,
        };
        if !known {
            if info.delivery != Delivery::OnBox {
                self.tell(version, DeliveryEvent::Reset).await?;
            }
            // A single request leaves nothing behind that would have to be resumed.
            if wanted {
                let upload = upload.to_string();
                if !self
                    .tell(version, DeliveryEvent::Started { upload })
                    .await?
                {
                    return Ok((version, Next::Done));
                }
            }
        }
        Ok((version, Next::Send(info, result)))
    }
}

/// What travels with the object of what the vault keeps beside its bytes.
fn kept(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let travels = |name: &str| KEPT_HEADERS.contains(&name);
    let kept = headers.iter().filter(|(name, _)| travels(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

enum Described {
    Object(Box<ObjectInfo>, Box<UploadObject>),
    Not(Next),
}

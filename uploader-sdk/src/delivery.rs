//! From the box to the cloud: asking the box how far it has carried each object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::lan::{DELIVERY_PATH, Deliveries, Delivery, DeliveryQuery, MAX_KEYS};
use tokio::time::Instant;

use crate::advice;
use crate::client::{BoxClient, bounded};
use crate::progress::Progress;
use crate::report::PushReport;

/// Longest answer that is read, in bytes: keys of 1 KiB with a reason each.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// First pause between two questions.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the box may not know an object before we believe it.
const UNKNOWN_TIMES: u32 = 3;

/// Why the box's word about its deliveries is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("the box at {address} does not say how far it has come: {why}")]
pub struct DeliveryError {
    /// Where the box is.
    pub address: String,
    /// What happened.
    pub why: String,
}

impl BoxClient {
    /// How far the box has carried `keys`; keys that it does not hold are absent.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`].
    pub async fn deliveries(
        &self,
        keys: &[ObjectKey],
    ) -> Result<BTreeMap<ObjectKey, Delivery>, DeliveryError> {
        Ok(self.deliveries_and_hold(keys).await?.objects)
    }

    /// The same, and why everything for the bucket waits, if it does.
    async fn deliveries_and_hold(&self, keys: &[ObjectKey]) -> Result<Deliveries, DeliveryError> {
        let mut all = Deliveries::default();
        for keys in keys.chunks(MAX_KEYS) {
            let some = self.deliveries_of(keys).await?;
            all.objects.extend(some.objects);
            all.held = some.held;
        }
        Ok(all)
    }

    async fn deliveries_of(&self, keys: &[ObjectKey]) -> Result<Deliveries, DeliveryError> {
        let failed = |why| DeliveryError {
            address: self.endpoint().addr.to_string(),
            why,
        };
        let ticket = self.ticket();
        let query = DeliveryQuery {
            bucket: ticket.bucket.clone(),
            keys: keys.to_vec(),
        };
        let answer = self
            .http()
            .post(format!("{}{DELIVERY_PATH}", self.url()))
            .basic_auth(&ticket.access_key, Some(&ticket.secret_key.0))
            .json(&query)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|e| failed(advice::chain(&e)))?;
        let bytes = bounded(answer, MAX_ANSWER_BYTES).await.map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))
    }
}

/// Waits until every file of `report` is verified in the cloud or has failed, and writes that into
/// the report. `patience` is the longest time without an answer of the box.
///
/// There is no limit on the whole: a box may carry its load by road.
///
/// # Errors
///
/// [`DeliveryError`] where the box does not answer for `patience`.
pub async fn wait_delivered(
    client: &BoxClient,
    report: &mut PushReport,
    progress: &Arc<Progress>,
    patience: Duration,
) -> Result<(), DeliveryError> {
    let mut watch = Watch::new(report);
    let mut pause = FIRST_PAUSE;
    let mut answered = Instant::now();
    loop {
        let pending = watch.pending();
        if pending.is_empty() {
            return Ok(());
        }
        match client.deliveries_and_hold(&pending).await {
            Ok(Deliveries { objects, held }) => {
                answered = Instant::now();
                progress.held(held.is_some());
                if watch.learn(&pending, objects) {
                    pause = FIRST_PAUSE;
                }
                watch.show(progress);
            }
            Err(error) if answered.elapsed() > patience => return Err(error),
            Err(error) => tracing::debug!(%error, "asking again"),
        }
        if !watch.pending().is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The deliveries of one report.
struct Watch<'a> {
    report: &'a mut PushReport,
    place: BTreeMap<ObjectKey, usize>,
    unknown: BTreeMap<ObjectKey, u32>,
}

impl<'a> Watch<'a> {
    fn new(report: &'a mut PushReport) -> Self {
        let place = report
            .files
            .iter()
            .enumerate()
            .map(|(index, file)| (file.key.clone(), index))
            .collect();
        Self {
            report,
            place,
            unknown: BTreeMap::new(),
        }
    }

    fn pending(&self) -> Vec<ObjectKey> {
        let ended = |delivery: &Option<Delivery>| {
            matches!(delivery, Some(Delivery::Verified | Delivery::Failed { .. }))
        };
        self.report
            .files
            .iter()
            .filter(|file| !ended(&file.delivery))
            .map(|file| file.key.clone())
            .collect()
    }

    /// Takes in an answer; whether anything moved.
    fn learn(
        &mut self,
        asked: &[ObjectKey],
        mut deliveries: BTreeMap<ObjectKey, Delivery>,
    ) -> bool {
        let mut moved = false;
        for key in asked {
            let Some(&index) = self.place.get(key) else {
                continue;
            };
            let now = deliveries.remove(key).or_else(|| self.missing(key));
            if now.is_some() && self.report.files[index].delivery != now {
                self.report.files[index].delivery = now;
                moved = true;
            }
        }
        moved
    }

    fn missing(&mut self, key: &ObjectKey) -> Option<Delivery> {
        let times = self.unknown.entry(key.clone()).or_default();
        *times += 1;
        (*times >= UNKNOWN_TIMES).then(|| Delivery::Failed {
            reason: "the box does not hold it any more: push it again".to_owned(),
        })
    }

    fn show(&self, progress: &Progress) {
        let verified = |file: &&crate::FileReport| file.delivery == Some(Delivery::Verified);
        let (files, bytes) = self
            .report
            .files
            .iter()
            .filter(verified)
            .fold((0, 0), |(files, bytes), file| {
                (files + 1, bytes + file.size)
            });
        progress.in_cloud(files, bytes);
    }
}

//! Destinations: each bucket is tried out when somebody wants to use it, and again now and then.

use longhaul_protocol::upload::BucketState;
use serde_json::json;

use super::{Actor, Fleet, FleetError, audit};
use crate::objects::bucket::Abilities;
use crate::objects::names::check_bucket;
use crate::store::destinations::{
    DestinationRow, destination_get, destination_list_due, destination_set,
};
use crate::store::{Tx, new_id};

/// A destination is tried out again after a day, in milliseconds.
const USABLE_MS: i64 = 86_400_000;
/// One that cannot be used, after two minutes: deliveries may wait for it.
const BROKEN_MS: i64 = 120_000;
/// One that refuses a box is not tried out again sooner than this, however many ask: where it is
/// known to refuse us as well, and where it took something.
const REFUSED_MS: (i64, i64) = (5_000, 1_000);
/// Destinations in one look.
const AT_ONCE: u32 = 20;

/// What was found out about a bucket.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The bucket.
    pub bucket: String,
    /// When it was tried out, in milliseconds since 1970.
    pub checked: i64,
    /// Whether deliveries can go there.
    pub usable: bool,
    /// What it can do, and what is wrong.
    pub abilities: Abilities,
}

impl From<DestinationRow> for Destination {
    fn from(row: DestinationRow) -> Self {
        Self {
            bucket: row.bucket,
            checked: row.checked,
            usable: row.usable,
            abilities: serde_json::from_str(&row.detail).unwrap_or_default(),
        }
    }
}

impl Destination {
    /// Why nothing can be delivered there, whoever tries.
    fn held(&self) -> Option<String> {
        self.abilities.denied.then(|| {
            format!(
                "bucket {} is refused to us: {}",
                self.bucket,
                self.abilities.problems.join("; ")
            )
        })
    }
}

/// Why deliveries to a bucket wait, as far as it was tried out.
pub(crate) async fn held(tx: &mut Tx, bucket: &str) -> Result<Option<String>, FleetError> {
    let row = destination_get(tx, bucket).await?;
    Ok(row.map(Destination::from).and_then(|found| found.held()))
}

/// What a bucket can do, as far as it was tried out.
pub(crate) async fn abilities(tx: &mut Tx, bucket: &str) -> Result<Option<Abilities>, FleetError> {
    let row = destination_get(tx, bucket).await?;
    Ok(row.map(|row| Destination::from(row).abilities))
}

impl Fleet {
    /// What was found out about a bucket.
    pub async fn destination(&self, bucket: &str) -> Result<Destination, FleetError> {
        check_bucket(bucket).map_err(FleetError::invalid)?;
        let mut tx = self.db().read().await?;
        let row = destination_get(&mut tx, bucket).await?;
        row.map(Destination::from)
            .ok_or_else(|| FleetError::not_found(format!("bucket {bucket} was not tried out yet")))
    }

    /// Tries a bucket out now.
    pub async fn destination_probe(
        &self,
        actor: &Actor,
        bucket: &str,
    ) -> Result<Destination, FleetError> {
        check_bucket(bucket).map_err(FleetError::invalid)?;
        let now = self.now();
        let mut tx = self.db().write().await?;
        audit(&mut tx, actor, "bucket.probe", bucket, json!({}), now).await?;
        tx.commit().await?;
        self.try_out(bucket).await
    }

    /// Tries out the buckets of orders and tickets that are new, or whose time has come.
    pub(crate) async fn destinations_look(&self) -> Result<(), FleetError> {
        let now = self.now().0;
        let (usable, broken) = (now.saturating_sub(USABLE_MS), now.saturating_sub(BROKEN_MS));
        let mut tx = self.db().read().await?;
        let due = destination_list_due(&mut tx, usable, broken, AT_ONCE).await?;
        drop(tx);
        for bucket in due {
            self.try_out(&bucket).await?;
        }
        Ok(())
    }

    /// The store has refused something for this bucket: tries it out, unless that was done just now;
    /// says why deliveries there wait, if the fault is the bucket's.
    pub(crate) async fn destination_refused(
        &self,
        bucket: &str,
    ) -> Result<BucketState, FleetError> {
        let mut tx = self.db().read().await?;
        let known = destination_get(&mut tx, bucket).await?;
        drop(tx);
        let now = self.now().0;
        let known = known.map(Destination::from).filter(|known| {
            let denied = known.abilities.denied;
            let good_for = if denied { REFUSED_MS.0 } else { REFUSED_MS.1 };
            now.saturating_sub(known.checked) < good_for
        });
        // What took something a moment ago may refuse everything since: that is no verdict.
        let again = known.as_ref().is_some_and(|known| !known.abilities.denied);
        let found = match known {
            Some(known) => known,
            None => self.try_out(bucket).await?,
        };
        let held = found.held();
        Ok(BucketState { held, again })
    }

    async fn try_out(&self, bucket: &str) -> Result<Destination, FleetError> {
        let abilities = self.buckets().probe(bucket, &new_id("probe")).await;
        let usable = abilities.problems.is_empty();
        if !usable {
            tracing::warn!(bucket, problems = ?abilities.problems, "a destination cannot be used");
        }
        let row = DestinationRow {
            bucket: bucket.to_owned(),
            detail: serde_json::to_string(&abilities)
                .map_err(|e| FleetError::internal("failed to write what a bucket can do", e))?,
            usable,
            checked: self.now().0,
        };
        let mut tx = self.db().write().await?;
        destination_set(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(row.into())
    }
}

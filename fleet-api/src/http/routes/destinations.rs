//! Destinations: what each bucket can do, and what is wrong with it.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use crate::fleet::{Destination, FleetErrorKind};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::objects::bucket::Checksums;
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<DestinationGet>().add::<DestinationProbe>()
}

/// Which bucket.
#[derive(Deserialize, IntoParams)]
pub struct BucketPath {
    /// The bucket's name.
    bucket: String,
}

/// What was found out about a bucket.
#[derive(Serialize, ToSchema)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one ability, and none follows from another"
)]
pub struct DestinationView {
    /// The bucket.
    bucket: String,
    /// When it was tried out; null while that is still to come, and nothing below is known.
    checked: Option<i64>,
    /// Whether deliveries can go there: then there are no `problems`.
    usable: bool,
    /// It may be written.
    put: bool,
    /// What was written is read back the same.
    read: bool,
    /// Objects can be sent in parts.
    multipart: bool,
    /// Objects that exist can be protected from being overwritten.
    conditional_put: bool,
    /// Objects can be deleted.
    delete: bool,
    /// Checksums that come with the bytes are `verified`, `ignored` or `refused`; or `unknown`.
    #[schema(value_type = String)]
    checksums: Checksums,
    /// What is wrong and what to do, in words.
    problems: Vec<String>,
    /// What is worth knowing and keeps nobody from delivering.
    notes: Vec<String>,
}

impl DestinationView {
    fn not_yet(bucket: String) -> Self {
        Self {
            bucket,
            checked: None,
            usable: false,
            put: false,
            read: false,
            multipart: false,
            conditional_put: false,
            delete: false,
            checksums: Checksums::Unknown,
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl From<Destination> for Json<DestinationView> {
    fn from(of: Destination) -> Self {
        let able = of.abilities;
        Self(DestinationView {
            bucket: of.bucket,
            checked: Some(of.checked),
            usable: of.usable,
            put: able.put,
            read: able.read,
            multipart: able.multipart,
            conditional_put: able.conditional_put,
            delete: able.delete,
            checksums: able.checksums,
            problems: able.problems,
            notes: able.notes,
        })
    }
}

endpoint! {
    /// What was found out.
    DestinationGet = GET "/v1/buckets/{bucket}/destination" as "destinationGet", Scope::Role(Role::Viewer), OK;
    "What a bucket can do, and what is wrong with it: tried out when an order or ticket names it, and daily."
    (BucketPath, Nothing, NoBody) -> Json<DestinationView> = get
}

async fn get(call: Call<DestinationGet>) -> Result<Json<DestinationView>, Problem> {
    let BucketPath { bucket } = call.path;
    match call.people.fleet.destination(&bucket).await {
        Err(error) if error.kind() == FleetErrorKind::NotFound => {
            Ok(Json(DestinationView::not_yet(bucket)))
        }
        found => Ok(found?.into()),
    }
}

endpoint! {
    /// Try it out.
    DestinationProbe = POST "/v1/buckets/{bucket}/probe" as "destinationProbe", Scope::Role(Role::Operator), OK;
    "Tries a bucket out now, under names below `.longhaul-probe/` that are deleted again; takes some seconds."
    (BucketPath, Nothing, NoBody) -> Json<DestinationView> = probe
}

async fn probe(call: Call<DestinationProbe>) -> Result<Json<DestinationView>, Problem> {
    let (actor, fleet) = (call.caller.actor(), &call.people.fleet);
    let probed = fleet.destination_probe(&actor, &call.path.bucket);
    Ok(probed.await?.into())
}

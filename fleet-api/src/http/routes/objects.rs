//! Objects in the buckets.

use longhaul_protocol::ids::ObjectKey;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::paging::{Part, page};
use crate::auth::Caller;
use crate::fleet::{ObjectInfo, ObjectQuery};
use crate::http::People;
use crate::http::api::Api;
use crate::http::cursor;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::reply::{Done, File};
use crate::store::Tx;
use crate::store::objects::object_get;
use crate::store::operators::Role;
use crate::store::tenants::{bucket_is_of, bucket_list_of};

pub(super) fn add(api: Api) -> Api {
    api.add::<BucketList>()
        .add::<ObjectList>()
        .add::<ObjectGet>()
        .add::<ObjectDelete>()
}

endpoint! {
    /// Where objects are.
    BucketList = GET "/v1/buckets" as "bucketList", Scope::Shared(Role::Viewer), OK;
    "The buckets that exist."
    (Nothing, Nothing, NoBody) -> Json<Buckets> = buckets
}

/// The buckets that exist.
#[derive(Serialize, ToSchema)]
pub struct Buckets {
    /// Their names.
    items: Vec<String>,
}

async fn buckets(call: Call<BucketList>) -> Result<Json<Buckets>, Problem> {
    if let Some(tenant) = call.caller.tenant() {
        // What nothing has arrived in yet is theirs all the same.
        let mut tx = call.people.db.read().await?;
        let items = bucket_list_of(&mut tx, tenant).await?;
        return Ok(Json(Buckets { items }));
    }
    let items = call.people.fleet.buckets_list().await?;
    Ok(Json(Buckets { items }))
}

endpoint! {
    /// What is in one.
    ObjectList = GET "/v1/objects" as "objectList", Scope::Shared(Role::Viewer), OK;
    "Objects of a bucket in the order of their keys, as folders where a delimiter is given."
    (Nothing, ListQuery, NoBody) -> Json<ObjectListPage> = list
}

/// Which objects.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// The bucket.
    bucket: String,
    /// What keys begin with.
    #[serde(default)]
    prefix: String,
    /// Group keys at this text, mostly `/`.
    delimiter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000.
    limit: Option<u32>,
}

page! {
    /// Objects of a bucket.
    ObjectPage of ObjectView
}

/// Objects and folders of a bucket.
#[derive(Serialize, ToSchema)]
pub struct ObjectListPage {
    /// The objects.
    #[serde(flatten)]
    page: ObjectPage,
    /// Folders: prefixes up to the delimiter.
    prefixes: Vec<String>,
}

/// One object.
#[derive(Serialize, ToSchema)]
pub struct ObjectView {
    /// Its name.
    key: String,
    /// Its length in bytes.
    bytes: u64,
    /// When it was written.
    modified: i64,
    /// The box that brought it, if one did.
    box_id: Option<String>,
    /// BLAKE3 of its bytes, as the box said and the cloud compared.
    blake3: Option<String>,
    /// When the cloud compared it.
    verified: Option<i64>,
}

async fn list(call: Call<ObjectList>) -> Result<Json<ObjectListPage>, Problem> {
    let query = call.query;
    check_owner(&call.people, &call.caller, &query.bucket).await?;
    let part = Part::new(query.cursor.as_deref(), query.limit)?;
    let asked = ObjectQuery {
        bucket: query.bucket,
        prefix: query.prefix,
        delimiter: query.delimiter.filter(|d| !d.is_empty()),
        after: part.place,
        limit: u16::try_from(part.limit).unwrap_or(u16::MAX),
    };
    let found = call.people.fleet.objects_list(&asked).await?;
    let mut tx = call.people.db.read().await?;
    let mut items = Vec::with_capacity(found.objects.len());
    for object in found.objects {
        items.push(view(&mut tx, &asked.bucket, object).await?);
    }
    let next = found.next.map(|n| cursor::encode(&n)).transpose()?;
    Ok(Json(ObjectListPage {
        page: ObjectPage::new(items, next, &call.people),
        prefixes: found.prefixes,
    }))
}

/// To a tenant, another's bucket is none.
pub(super) async fn check_owner(
    people: &People,
    caller: &Caller,
    bucket: &str,
) -> Result<(), Problem> {
    let Some(tenant) = caller.tenant() else {
        return Ok(());
    };
    let missing = || Problem::not_found(format!("there is no bucket {}", bucket.escape_debug()));
    if bucket.contains('\0') {
        return Err(missing());
    }
    let mut tx = people.db.read().await?;
    if bucket_is_of(&mut tx, bucket, tenant).await? {
        return Ok(());
    }
    Err(missing())
}

/// The object with what the cloud knows of how it came.
async fn view(tx: &mut Tx, bucket: &str, object: ObjectInfo) -> Result<ObjectView, Problem> {
    // Someone else may have put an object there whose name no box could have brought.
    let row = match object.key.parse::<ObjectKey>() {
        Ok(key) => object_get(tx, bucket, &key).await?,
        Err(_) => None,
    };
    Ok(ObjectView {
        key: object.key,
        bytes: object.bytes,
        modified: object.modified.0,
        box_id: row.as_ref().map(|r| r.box_id.to_string()),
        blake3: row.as_ref().map(|r| r.blake3.to_string()),
        verified: row.map(|r| r.verified),
    })
}

/// Which object.
#[derive(Deserialize, IntoParams)]
pub struct ObjectPath {
    /// The bucket.
    bucket: String,
    /// The object's key, slashes and all.
    #[param(value_type = String)]
    key: ObjectKey,
}

endpoint! {
    /// Its bytes.
    ObjectGet = GET "/v1/objects/{bucket}/{*key}" as "objectGet", Scope::Shared(Role::Viewer), OK;
    "An object's bytes, as a file to be saved."
    (ObjectPath, Nothing, NoBody) -> File = get
}

async fn get(call: Call<ObjectGet>) -> Result<File, Problem> {
    let (bucket, key) = (&call.path.bucket, &call.path.key);
    check_owner(&call.people, &call.caller, bucket).await?;
    let object = call.people.fleet.object_open(bucket, key).await?;
    Ok(File {
        name: key.to_string(),
        content_type: object
            .content_type
            .unwrap_or_else(|| "application/octet-stream".to_owned()),
        bytes: object.bytes,
        body: object.body,
    })
}

endpoint! {
    /// Gone.
    ObjectDelete = DELETE "/v1/objects/{bucket}/{*key}" as "objectDelete", Scope::Role(Role::Operator), NO_CONTENT;
    "Deletes an object from its bucket."
    (ObjectPath, Nothing, NoBody) -> Done = delete
}

async fn delete(call: Call<ObjectDelete>) -> Result<Done, Problem> {
    let (bucket, key) = (&call.path.bucket, &call.path.key);
    let actor = call.caller.actor();
    call.people.fleet.object_delete(&actor, bucket, key).await?;
    Ok(Done)
}

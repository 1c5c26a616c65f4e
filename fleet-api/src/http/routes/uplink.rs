//! How a box uses its way to the buckets: pause, limits by the hour of the week, priorities.

use std::collections::BTreeMap;

use longhaul_protocol::diag::Code;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::uplink::{Priority, UplinkMode, UplinkPolicy, Week};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::box_view::BoxPath;
use super::{endpoint, uplink_schema};
use crate::fleet::{Actor, Uplink};
use crate::http::People;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::tag::{Changeable, Seen, Tagged};
use crate::objects::names::check_bucket;
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<UplinkGet>()
        .add::<UplinkSet>()
        .add::<UplinkPause>()
        .add::<UplinkResume>()
}

/// How a box shall use its way to the buckets.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "paused": false, "priorities": { "survey-2026": "urgent" } }))]
pub struct UplinkPolicyView {
    /// Nothing is sent to a bucket; what was begun is kept, and files are taken as ever.
    #[serde(default)]
    paused: bool,
    /// Limits by the hour of the week; absent: none at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    week: Option<WeekView>,
    /// Buckets that go before (`urgent`) or after (`low`) the others; `normal` is the same as
    /// absent. Nobody is kept waiting for ever.
    #[serde(default)]
    #[schema(schema_with = uplink_schema::priorities)]
    priorities: BTreeMap<String, Priority>,
}

/// Limits for each hour of the week.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeekView {
    /// How far the grid's clock is before UTC, in minutes, -840 to 840; it knows no summer time.
    #[serde(default)]
    #[schema(minimum = -840, maximum = 840)]
    utc_offset_minutes: i16,
    /// Seven days from Monday on, 24 hours each: bytes per second of all that is sent, 16,384 at
    /// the least; `0` for nothing, `null` for as much as the line takes.
    #[schema(schema_with = uplink_schema::limits)]
    limits: Box<[[Option<u64>; 24]; 7]>,
}

impl From<UplinkPolicy> for UplinkPolicyView {
    fn from(policy: UplinkPolicy) -> Self {
        Self {
            paused: policy.paused,
            week: policy.week.map(|week| WeekView {
                utc_offset_minutes: week.utc_offset_minutes,
                limits: week.limits,
            }),
            priorities: policy.priorities,
        }
    }
}

impl UplinkPolicyView {
    fn policy(self) -> Result<UplinkPolicy, Problem> {
        let mut priorities = self.priorities;
        priorities.retain(|_, priority| *priority != Priority::Normal);
        for bucket in priorities.keys() {
            check_bucket(bucket).map_err(Problem::invalid)?;
        }
        Ok(UplinkPolicy {
            paused: self.paused,
            week: self.week.map(|week| Week {
                utc_offset_minutes: week.utc_offset_minutes,
                limits: week.limits,
            }),
            priorities,
        })
    }
}

impl Changeable for UplinkPolicyView {
    fn changeable(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl Changeable for UplinkView {
    fn changeable(&self) -> serde_json::Value {
        self.wanted.changeable()
    }
}

/// Changes what is wanted, unless it is not what the caller saw.
async fn change(
    people: &People,
    (actor, seen): (&Actor, &Seen),
    id: &BoxId,
    change: impl FnOnce(UplinkPolicy) -> UplinkPolicy + Send,
) -> Result<Tagged<UplinkView>, Problem> {
    let mut refused = None;
    let changed = people.fleet.uplink_change(actor, id, |before| {
        let now: UplinkPolicyView = before.clone().into();
        match seen.check(&now) {
            Ok(()) => change(before),
            Err(problem) => {
                refused = Some(problem);
                before
            }
        }
    });
    let changed = changed.await?;
    match refused {
        Some(problem) => Err(problem),
        None => Ok(changed.into()),
    }
}

/// What is wanted of a box's uplink, and what is in force.
#[derive(Serialize, ToSchema)]
pub struct UplinkView {
    /// What is wanted.
    wanted: UplinkPolicyView,
    /// Whether the box has applied what is wanted.
    applied: bool,
    /// What the box said last: `sending`, `paused`, or `waiting` for an hour in which it may send;
    /// absent if it never said.
    #[schema(value_type = Option<String>)]
    state: Option<UplinkMode>,
    /// Bytes per second that it may send now; absent where nothing limits it.
    bytes_per_sec: Option<u64>,
    /// Why some deliveries wait though it may send: the code of buckets that refuse everybody.
    #[schema(value_type = Option<String>)]
    code: Option<Code>,
}

impl From<Uplink> for Tagged<UplinkView> {
    fn from(of: Uplink) -> Self {
        Self(UplinkView {
            wanted: of.wanted.into(),
            applied: of.applied,
            state: of.in_force.map(|now| now.state),
            bytes_per_sec: of.in_force.and_then(|now| now.bytes_per_sec),
            code: of.in_force.and_then(|now| now.code),
        })
    }
}

endpoint! {
    /// What is wanted and what is in force.
    UplinkGet = GET "/v1/boxes/{box_id}/uplink" as "uplinkGet", Scope::Role(Role::Viewer), OK;
    "How a box uses its way to the buckets: what is wanted, and what is in force."
    (BoxPath, Nothing, NoBody) -> Tagged<UplinkView> = get
}

async fn get(call: Call<UplinkGet>) -> Result<Tagged<UplinkView>, Problem> {
    Ok(call.people.fleet.uplink(&call.path.box_id).await?.into())
}

endpoint! {
    /// All of it.
    UplinkSet = PUT "/v1/boxes/{box_id}/uplink" as "uplinkSet", Scope::Role(Role::Operator), OK;
    "Sets pause, limits by the hour of the week, and priorities. In force within seconds where the box is connected."
    (BoxPath, Nothing, Json<UplinkPolicyView>) -> Tagged<UplinkView> = set
}

async fn set(call: Call<UplinkSet>) -> Result<Tagged<UplinkView>, Problem> {
    let (actor, policy) = (call.caller.actor(), call.body.0.policy()?);
    let who = (&actor, &call.seen);
    change(&call.people, who, &call.path.box_id, |_| policy).await
}

endpoint! {
    /// Stop sending.
    UplinkPause = POST "/v1/boxes/{box_id}/uplink/pause" as "uplinkPause", Scope::Role(Role::Operator), OK;
    "Has a box send nothing to the buckets until it is resumed; files are taken as ever."
    (BoxPath, Nothing, NoBody) -> Tagged<UplinkView> = pause
}

async fn pause(call: Call<UplinkPause>) -> Result<Tagged<UplinkView>, Problem> {
    let actor = call.caller.actor();
    let who = (&actor, &call.seen);
    let paused = |policy| UplinkPolicy {
        paused: true,
        ..policy
    };
    change(&call.people, who, &call.path.box_id, paused).await
}

endpoint! {
    /// Go on.
    UplinkResume = POST "/v1/boxes/{box_id}/uplink/resume" as "uplinkResume", Scope::Role(Role::Operator), OK;
    "Has a box send to the buckets again, from where it stopped."
    (BoxPath, Nothing, NoBody) -> Tagged<UplinkView> = resume
}

async fn resume(call: Call<UplinkResume>) -> Result<Tagged<UplinkView>, Problem> {
    let actor = call.caller.actor();
    let who = (&actor, &call.seen);
    let resumed = |policy| UplinkPolicy {
        paused: false,
        ..policy
    };
    change(&call.people, who, &call.path.box_id, resumed).await
}

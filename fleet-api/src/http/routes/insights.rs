//! What the fleet's history teaches: how boxes come online, and what keeps them from it.

use longhaul_protocol::diag::Rung;
use longhaul_protocol::ids::BoxId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::paging::{Part, page};
use crate::auth::Caller;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::bring_up::FailureRow;
use crate::store::bring_up::report::{
    BootOfBox, BringUpGroup, CauseRow, Reached, Span, bring_up_boots, bring_up_causes,
    bring_up_failures, bring_up_reached, bring_up_times,
};
use crate::store::operators::Role;

/// How far back the report looks, where the caller does not say, in milliseconds.
const DEFAULT_SPAN_MS: i64 = 30 * 86_400_000;

pub(super) fn add(api: Api) -> Api {
    api.add::<BringUpReport>().add::<BringUpBoots>()
}

endpoint! {
    /// What holds boxes up.
    BringUpReport = GET "/v1/insights/bring-up" as "bringUpReport", Scope::Shared(Role::Viewer), OK;
    "How boxes come online: how far they get, how long it takes, and what holds them up, what cost most first."
    (Nothing, ReportQuery, NoBody) -> Json<BringUp> = report
}

/// Which part of the past.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ReportQuery {
    /// Boots and failures that began at this time or later, milliseconds; 30 days ago if absent.
    from: Option<i64>,
    /// And before this time; now if absent.
    to: Option<i64>,
    /// What causes are told apart by; all together if absent.
    #[param(inline)]
    group: Option<BringUpGroup>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Causes at the most, 1 to 1,000; 100 if absent.
    limit: Option<u32>,
}

/// How boxes come online.
#[derive(Serialize, ToSchema)]
pub struct BringUp {
    /// Begin of the time that was looked at.
    from: i64,
    /// Its end.
    to: i64,
    /// How many boxes came how far: powered, each rung, online, claimed, first byte.
    funnel: Vec<FunnelStep>,
    /// From power to online, for each boot.
    times: BringUpTimes,
    /// What held boxes up, what cost most first.
    items: Vec<Cause>,
    /// Send it as `cursor` for the causes after these; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The cloud's clock.
    server_time: i64,
}

/// One step of the funnel.
#[derive(Serialize, ToSchema)]
pub struct FunnelStep {
    /// `powered`, a rung, `online`, `claimed` (it has a tenant or a ticket) or `first_byte` (it began to
    /// send an object).
    step: String,
    /// Boxes that came so far.
    boxes: i64,
}

/// How long it takes.
#[derive(Serialize, ToSchema)]
pub struct BringUpTimes {
    /// Boots that were told of; of more than 10,000 the newest.
    boots: usize,
    /// How many of them came online.
    online: usize,
    /// Half of those took no longer, in milliseconds from power to online.
    median_ms: Option<i64>,
    /// Nine tenths of them took no longer.
    p90_ms: Option<i64>,
    /// The slowest.
    slowest_ms: Option<i64>,
}

/// What one code did in one group.
#[derive(Serialize, ToSchema)]
pub struct Cause {
    /// Site, hardware or release; empty where causes are not told apart, or nobody wrote it down.
    group: String,
    /// The rung that failed.
    rung: String,
    /// Why.
    code: String,
    /// The same in a few words.
    title: &'static str,
    /// How many failures.
    failures: i64,
    /// Of how many boxes.
    boxes: i64,
    /// How many of them last.
    lasting: i64,
    /// How long they held boxes up, in milliseconds: while no lower rung failed.
    held_up_ms: i64,
    /// The longest of them.
    longest_ms: i64,
    /// What ended them.
    fixes: Fixes,
}

/// How many failures were ended by what.
#[derive(Serialize, ToSchema)]
pub struct Fixes {
    /// A cable was plugged in, or an interface came up.
    cable: i64,
    /// The box got another address, gateway or DNS server.
    address: i64,
    /// Somebody set something on the box: its proxy, its clock.
    setting: i64,
    /// Nothing changed on the box: whoever it talks to does now what it did not.
    other_side: i64,
    /// Nothing changed that could be seen, and failures of this kind come and go.
    by_itself: i64,
    /// The box, or its agent, was started anew.
    restart: i64,
    /// Nothing: another failure of the same rung took its place.
    another: i64,
}

impl From<CauseRow> for Cause {
    fn from(row: CauseRow) -> Self {
        let entry = row.code.0.entry();
        Self {
            group: row.name,
            rung: rung_name(entry.rung).to_owned(),
            code: row.code.0.to_string(),
            title: entry.title,
            failures: row.failures,
            boxes: row.boxes,
            lasting: row.lasting,
            held_up_ms: row.held_up_ms,
            longest_ms: row.longest_ms,
            fixes: Fixes {
                cable: row.cable,
                address: row.address,
                setting: row.setting,
                other_side: row.other_side,
                by_itself: row.by_itself,
                restart: row.restart,
                another: row.another,
            },
        }
    }
}

async fn report(call: Call<BringUpReport>) -> Result<Json<BringUp>, Problem> {
    let now = call.people.clock.now().0;
    let query = &call.query;
    let span = span(query.from, query.to, now, &call.caller)?;
    let part = Part::<(i64, String, String)>::new(query.cursor.as_deref(), query.limit)?;
    let place = part.place.as_ref().map(place);
    let after = place
        .as_ref()
        .map(|(held, a, b)| (*held, a.as_str(), b.as_str()));
    let mut tx = call.people.db.read().await?;
    let rows = bring_up_causes(&mut tx, span, query.group, after, part.limit).await?;
    let next = part.next(&rows, |last| {
        (last.held_up_ms, last.name.clone(), last.code.0.to_string())
    })?;
    let reached = bring_up_reached(&mut tx, span).await?;
    let times = bring_up_times(&mut tx, span).await?;
    Ok(Json(BringUp {
        from: span.from,
        to: span.to,
        funnel: funnel(&reached),
        times: BringUpTimes::of(&times),
        items: rows.into_iter().map(Into::into).collect(),
        next,
        server_time: now,
    }))
}

endpoint! {
    /// One by one.
    BringUpBoots = GET "/v1/insights/bring-up/boots" as "bringUpBoots", Scope::Shared(Role::Viewer), OK;
    "Boots of boxes, newest first: how long each took, and each failure in it with its evidence and what fixed it."
    (Nothing, BootQuery, NoBody) -> Json<BootPage> = boots
}

/// Which boots.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct BootQuery {
    /// Boots that began at this time or later, milliseconds; 30 days ago if absent.
    from: Option<i64>,
    /// And before this time; now if absent.
    to: Option<i64>,
    /// Of this box only.
    #[param(value_type = Option<String>)]
    box_id: Option<BoxId>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000; 100 if absent.
    limit: Option<u32>,
}

/// One boot of a box.
#[derive(Serialize, ToSchema)]
pub struct BootView {
    /// The box.
    box_id: String,
    /// The kernel's name of the boot.
    boot: String,
    /// When it began, as far as clocks can be believed.
    began: i64,
    /// Version of the agent.
    release: String,
    /// Where the box stands, as an operator wrote it.
    site: String,
    /// Hardware type.
    hardware: String,
    /// From power to the agent's first start, in milliseconds.
    power_to_start_ms: i64,
    /// From power to online, in milliseconds; absent where it was not online in this boot.
    power_to_online_ms: Option<i64>,
    /// The highest rung that has held, with all below it.
    reached: Option<String>,
    /// What failed, in the order in which it began; of more than 5,000 on a page the first.
    failures: Vec<BootFailure>,
}

/// One failure of a rung.
#[derive(Serialize, ToSchema)]
pub struct BootFailure {
    /// The rung.
    rung: String,
    /// Why it did not hold.
    code: String,
    /// The same in a few words.
    title: &'static str,
    /// What was seen.
    evidence: String,
    /// When it began, as far as clocks can be believed.
    began: i64,
    /// How long the boot had lasted then, in milliseconds.
    since_boot_ms: i64,
    /// How long it lasted, in milliseconds; absent while it does.
    lasted_ms: Option<i64>,
    /// How long it was the lowest rung that failed, in milliseconds.
    held_up_ms: i64,
    /// What ended it, as in the report's `fixes`; absent while it lasts.
    fix: Option<String>,
}

impl From<&FailureRow> for BootFailure {
    fn from(row: &FailureRow) -> Self {
        let entry = row.code.0.entry();
        Self {
            rung: rung_name(entry.rung).to_owned(),
            code: row.code.0.to_string(),
            title: entry.title,
            evidence: row.evidence.clone(),
            began: row.began,
            since_boot_ms: row.since_boot_ms,
            lasted_ms: row.lasted_ms,
            held_up_ms: row.held_up_ms,
            fix: row.fix.clone(),
        }
    }
}

impl From<(BootOfBox, &[FailureRow])> for BootView {
    fn from((row, failures): (BootOfBox, &[FailureRow])) -> Self {
        let boot = row.boot;
        let own = failures
            .iter()
            .filter(|f| f.box_id == boot.box_id && f.boot_id == boot.boot_id);
        let reached = usize::try_from(boot.reached)
            .ok()
            .and_then(|n| n.checked_sub(1));
        Self {
            power_to_online_ms: boot
                .start_to_online_ms
                .map(|ms| ms.saturating_add(boot.power_to_start_ms)),
            reached: reached
                .and_then(|index| Rung::ALL.get(index))
                .map(|rung| rung_name(*rung).to_owned()),
            failures: own.map(Into::into).collect(),
            box_id: boot.box_id.to_string(),
            boot: boot.boot_id.to_string(),
            began: boot.began,
            release: boot.release,
            site: row.site,
            hardware: row.hardware,
            power_to_start_ms: boot.power_to_start_ms,
        }
    }
}

page! {
    /// A page of boots.
    BootPage of BootView
}

async fn boots(call: Call<BringUpBoots>) -> Result<Json<BootPage>, Problem> {
    let now = call.people.clock.now().0;
    let query = &call.query;
    let span = span(query.from, query.to, now, &call.caller)?;
    let part = Part::<(i64, String, String)>::new(query.cursor.as_deref(), query.limit)?;
    let place = part.place.as_ref().map(place);
    let after = place
        .as_ref()
        .map(|(began, a, b)| (*began, a.as_str(), b.as_str()));
    let mut tx = call.people.db.read().await?;
    let rows = bring_up_boots(&mut tx, span, query.box_id.as_ref(), after, part.limit).await?;
    let next = part.next(&rows, |last| {
        let boot = &last.boot;
        (
            boot.began,
            boot.box_id.to_string(),
            boot.boot_id.to_string(),
        )
    })?;
    let failures = match (rows.first(), rows.last()) {
        (Some(first), Some(last)) => {
            let shown = Span {
                from: last.boot.began,
                to: first.boot.began.saturating_add(1),
                ..span
            };
            bring_up_failures(&mut tx, shown, query.box_id.as_ref()).await?
        }
        _ => Vec::new(),
    };
    let rows = rows.into_iter().map(|row| (row, failures.as_slice()));
    Ok(Json(BootPage::new(rows, next, &call.people)))
}

fn span(
    from: Option<i64>,
    to: Option<i64>,
    now: i64,
    caller: &Caller,
) -> Result<Span<'_>, Problem> {
    let to = to.unwrap_or(now.saturating_add(1));
    let from = from.unwrap_or(to.saturating_sub(DEFAULT_SPAN_MS).max(0));
    if from < 0 || from >= to {
        return Err(Problem::invalid("from must be 0 or more, and before to"));
    }
    Ok(Span {
        from,
        to,
        tenant: caller.tenant(),
    })
}

/// A place as the store wants it: no stored name has a NUL, and PostgreSQL takes none.
fn place((number, a, b): &(i64, String, String)) -> (i64, String, String) {
    (*number, a.replace('\0', ""), b.replace('\0', ""))
}

/// The steps of the funnel, each with all that came so far or further.
fn funnel(reached: &[Reached]) -> Vec<FunnelStep> {
    let from = |rungs: usize| {
        let far = reached
            .iter()
            .filter(move |row| usize::try_from(row.reached).unwrap_or(0) >= rungs);
        far.clone()
            .fold((0, 0, 0), |(boxes, claimed, sending), row| {
                (
                    boxes + row.boxes,
                    claimed + row.claimed,
                    sending + row.sending,
                )
            })
    };
    let step = |step: &str, boxes| FunnelStep {
        step: step.to_owned(),
        boxes,
    };
    let (_, claimed, sending) = from(Rung::ALL.len());
    let rungs = Rung::ALL.iter().enumerate().map(|(index, rung)| {
        let name = if *rung == Rung::Broker {
            "online"
        } else {
            rung_name(*rung)
        };
        step(name, from(index + 1).0)
    });
    let mut steps = vec![step("powered", from(0).0)];
    steps.extend(rungs);
    steps.extend([step("claimed", claimed), step("first_byte", sending)]);
    steps
}

impl BringUpTimes {
    fn of(times: &[Option<i64>]) -> Self {
        let mut online: Vec<_> = times.iter().flatten().copied().collect();
        online.sort_unstable();
        // The nearest rank: a time that was measured, not one in between.
        let rank = |tenths: usize| {
            let place = (online.len() * tenths).div_ceil(10);
            online.get(place.saturating_sub(1)).copied()
        };
        Self {
            boots: times.len(),
            online: online.len(),
            median_ms: rank(5),
            p90_ms: rank(9),
            slowest_ms: online.last().copied(),
        }
    }
}

/// The rung as in its JSON.
const fn rung_name(rung: Rung) -> &'static str {
    match rung {
        Rung::Link => "link",
        Rung::Address => "address",
        Rung::Gateway => "gateway",
        Rung::Dns => "dns",
        Rung::Proxy => "proxy",
        Rung::Clock => "clock",
        Rung::CloudTcp => "cloud_tcp",
        Rung::CloudTls => "cloud_tls",
        Rung::Enrolled => "enrolled",
        Rung::Broker => "broker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_far_passed_every_step_before() {
        let far = |reached, boxes, claimed, sending| Reached {
            reached,
            boxes,
            claimed,
            sending,
        };

        // A box that was claimed and is not online does not widen the funnel again.
        let steps = funnel(&[far(0, 1, 1, 0), far(3, 2, 0, 0), far(10, 4, 2, 1)]);

        let counts: Vec<_> = steps.iter().map(|s| s.boxes).collect();
        assert_eq!(counts, [7, 6, 6, 6, 4, 4, 4, 4, 4, 4, 4, 2, 1]);
        assert_eq!(
            (steps[0].step.as_str(), steps[10].step.as_str()),
            ("powered", "online")
        );
        assert!(funnel(&[]).iter().all(|step| step.boxes == 0));
    }

    #[test]
    fn the_middle_and_the_slowest_are_times_that_were_measured() {
        let times = BringUpTimes::of(&[Some(30), None, Some(10), Some(20)]);
        let none = BringUpTimes::of(&[None]);

        assert_eq!((times.boots, times.online), (4, 3));
        let all = (times.median_ms, times.p90_ms, times.slowest_ms);
        assert_eq!(all, (Some(20), Some(30), Some(30)));
        assert_eq!(
            (none.boots, none.median_ms, none.slowest_ms),
            (1, None, None)
        );
    }

    #[test]
    fn rungs_are_called_as_in_their_json() {
        for rung in Rung::ALL {
            assert_eq!(serde_json::json!(rung), rung_name(rung));
        }
    }
}

//! What happens in the fleet, live.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_protocol::ids::BoxId;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::Interval;
use utoipa::IntoParams;

use super::endpoint;
use crate::auth::{Caller, still_valid};
use crate::fleet::FleetEvent;
use crate::http::People;
use crate::http::api::Api;
use crate::http::endpoint::{Call, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::reply::Events;
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<EventList>()
}

endpoint! {
    /// Live.
    EventList = GET "/v1/events" as "eventList", Scope::Role(Role::Viewer), OK;
    "Server-sent events: what changes in the fleet, as it changes. `lost` says that the reader was too slow and should read anew."
    (Nothing, EventQuery, NoBody) -> Events = events
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// About this box only.
    #[param(value_type = Option<String>)]
    box_id: Option<BoxId>,
}

struct Watch {
    people: Arc<People>,
    caller: Caller,
    box_id: Option<BoxId>,
    events: broadcast::Receiver<FleetEvent>,
    heartbeat: Interval,
    _place: OwnedSemaphorePermit,
}

async fn events(call: Call<EventList>) -> Result<Events, Problem> {
    let place = Arc::clone(&call.people.watchers)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("too many live views are open"))?;
    let mut heartbeat = tokio::time::interval(call.people.heartbeat);
    heartbeat.reset();
    let watch = Watch {
        events: call.people.fleet.events(),
        people: call.people,
        caller: call.caller,
        box_id: call.query.box_id,
        heartbeat,
        _place: place,
    };
    // The first line tells the reader that nothing that happens from now on is missed.
    let first = futures::stream::iter([Bytes::from_static(b"retry: 2000\n: ready\n\n")]);
    let rest = futures::stream::unfold(watch, async |mut watch| {
        let next = watch.next().await?;
        Some((next, watch))
    });
    Ok(Events(Box::pin(futures::StreamExt::chain(first, rest))))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                () = self.people.stop.cancelled() => return None,
                _ = self.heartbeat.tick() => {
                    // Whoever was logged out meanwhile sees no more.
                    if !still_valid(&self.people, &self.caller, Role::Viewer).await {
                        return None;
                    }
                    return Some(Bytes::from_static(b": alive\n\n"));
                }
                event = self.events.recv() => match event {
                    Ok(event) if self.concerns(&event) => match serde_json::to_string(&event) {
                        Ok(text) => return Some(frame(&text)),
                        Err(error) => tracing::error!(%error, "failed to encode an event"),
                    },
                    Ok(_) => {}
                    Err(RecvError::Lagged(count)) => {
                        let lost = json!({ "event": "lost", "count": count });
                        return Some(frame(&lost.to_string()));
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn concerns(&self, event: &FleetEvent) -> bool {
        self.box_id
            .as_ref()
            .is_none_or(|id| event.box_id.as_ref() == Some(id))
    }
}

/// One event; JSON has no line break.
fn frame(json: &str) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

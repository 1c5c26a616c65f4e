//! The way to boxes and to the other processes: an edge in this one, a backbone, or both.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_broker::{Bus, Delivery, Edge, Reason, Stats};
use longhaul_protocol::backbone::{Call, EdgeId};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Dn;

/// How boxes are reached; clones are the same.
#[derive(Clone)]
pub struct Line {
    edge: Option<Edge>,
    bus: Option<Bus>,
    id: EdgeId,
    name: Arc<str>,
}

impl Line {
    /// The line of a process: its edge, if it has one, and its backbone, if there is one.
    pub fn new(edge: Option<Edge>, bus: Option<Bus>, id: EdgeId) -> Self {
        Self {
            edge,
            bus,
            id,
            name: id.to_string().into(),
        }
    }

    /// The edge in this process.
    pub const fn edge(&self) -> Option<&Edge> {
        self.edge.as_ref()
    }

    /// The backbone.
    pub const fn bus(&self) -> Option<&Bus> {
        self.bus.as_ref()
    }

    /// Names this process's edge in the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names the edge that took a message.
    pub fn took(&self, edge: Option<EdgeId>) -> String {
        edge.unwrap_or(self.id).to_string()
    }

    /// What the edge in this process counts.
    pub fn stats(&self) -> Stats {
        self.edge.as_ref().map(Edge::stats).unwrap_or_default()
    }

    /// Whether a box has its session in this process.
    pub fn holds(&self, box_id: &BoxId) -> bool {
        self.edge.as_ref().is_some_and(|e| e.is_connected(box_id))
    }

    /// Sends what may be lost: here, or to wherever the box is.
    pub fn publish(&self, box_id: &BoxId, channel: Dn, payload: Bytes) -> Delivery {
        if let Some(edge) = &self.edge
            && self.holds(box_id)
        {
            return edge.publish(box_id, channel, payload);
        }
        if let Some(bus) = &self.bus {
            bus.forward(box_id, channel, &payload);
        }
        Delivery::NotConnected
    }

    /// Asks whoever holds the box, elsewhere, to look into the database; `false` without a backbone.
    pub fn call(&self, box_id: &BoxId, call: Call) -> bool {
        if let Some(bus) = &self.bus {
            bus.call(box_id, call);
        }
        self.bus.is_some()
    }

    /// Cuts a box off, if it has its session here.
    pub fn disconnect(&self, box_id: &BoxId, reason: Reason) -> bool {
        self.edge
            .as_ref()
            .is_some_and(|edge| edge.disconnect(box_id, reason))
    }
}

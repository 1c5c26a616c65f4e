//! The steps of one version on its way: begin at the cloud, send to the store, complete, settle.
//!
//! Each step ends with what is to be done next with each version that it was given. What a step
//! has learnt is durable in the vault before the step ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::uplink::Priority;
use longhaul_protocol::upload::{CompleteUpload, StartResult};
use longhaul_vault::{ObjectInfo, Version};
use parking_lot::Mutex;

use super::cloud::AskError;
use super::pace::Pace;
use super::pack::{Gauge, PackJob};
use super::send::Store;
use super::throttle::Throttle;
use super::turns::Gate;
use super::{UplinkConfig, UplinkError, UplinkParts};

/// Packs on their way at a time; each lies in memory.
const PACKS: usize = 2;

/// A version that failed for now.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub why: String,
    /// It came a good way: the next pause is short.
    pub progressed: bool,
    /// The pause is no shorter than this.
    pub pause: Duration,
}

impl Next {
    /// It failed for now, and nothing was won.
    pub fn again(why: impl Into<String>) -> Self {
        Self::Again(Again {
            why: why.into(),
            ..Again::default()
        })
    }
}

/// What is to be done next with a version.
#[derive(Debug)]
pub(super) enum Next {
    /// Send it as the cloud said.
    Send(Box<ObjectInfo>, StartResult),
    /// Carry this pack: the version is its first, and it tells what becomes of all of them.
    Pack(Box<PackJob>),
    /// Every byte was sent: complete it.
    Complete(CompleteUpload),
    /// It failed for now.
    Again(Again),
    /// Nothing more: it arrived, was given up or is gone.
    Done,
}

/// What a step made of its versions, or why the cloud would not hear about them.
pub(super) enum Asked {
    Answered(Vec<(Version, Next)>),
    Failed(AskError),
}

/// What every step works with.
#[derive(Clone)]
pub(super) struct Carrier {
    pub parts: UplinkParts,
    pub store: Store,
    pub throttle: Throttle,
    pub singles: Gate,
    /// Objects in parts, by priority: one may take days, and must not hold up what is urgent.
    pub multiparts: [Gate; 3],
    /// Parts of all objects that are on their way, and how many wait for their turn.
    pub pace: Pace,
    pub most_parts: usize,
    pub packs: Gate,
    pub gauge: Arc<Mutex<Gauge>>,
    /// How often in a row the store refused a version's requests.
    pub(super) refusals: Arc<Mutex<HashMap<Version, u32>>>,
}

pub(super) type Steps = Result<Vec<(Version, Next)>, UplinkError>;

impl Carrier {
    pub fn new(
        config: &UplinkConfig,
        parts: &UplinkParts,
        store: Store,
        throttle: Throttle,
    ) -> Self {
        Self {
            parts: parts.clone(),
            store,
            throttle,
            singles: Gate::new(config.singles.get()),
            multiparts: Priority::ALL.map(|_| Gate::new(config.multiparts.get())),
            pace: Pace::new(config.parts, config.most_parts),
            most_parts: config.most_parts.get(),
            packs: Gate::new(PACKS),
            gauge: Arc::new(Mutex::new(Gauge::new(config.pack_above))),
            refusals: Arc::default(),
        }
    }
}

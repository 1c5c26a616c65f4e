//! The ladder from a cable to the cloud.
//!
//! [`rungs`] looks and decides, [`proxy`] is the customer's way out. A box climbs it for as long as it
//! lives; `longhaul-probe` climbs it once, in a network where no box is yet, and measures around it
//! ([`probe`]).

pub mod clock;
pub mod disk;
pub mod observation;
pub mod probe;
pub mod proxy;
pub mod rungs;
pub mod surroundings;
pub mod text;

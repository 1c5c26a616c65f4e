//! The MQTT edge: the fleet's front door.
//!
//! Boxes speak MQTT 5 over TLS 1.3 with a client certificate that says who they are; each may
//! publish its own `up/` topics and subscribe its own `dn/` topics, and nothing else. Data moves
//! `socket -> transport -> wire -> session -> backbone -> Incoming` towards the cloud, and
//! `Edge::publish -> mailbox -> session -> transport -> socket` towards a box.
//!
//! [`Edge::start`] runs it in the caller's process, and [`Edge::start_behind`] as one of many on a
//! NATS cluster ([`Bus`]). Sessions live as long as their connections,
//! nothing is retained and nothing is shared: truth lives in the cloud's database and in the
//! boxes' journals (`docs/adr/0001`, `docs/adr/0002`).
#![forbid(unsafe_code)]

mod admission;
mod backbone;
mod bus;
mod clock;
mod config;
mod connection;
mod edge;
mod half_open;
mod handshake;
mod identity;
mod incoming;
mod mailbox;
mod rate;
mod reason;
mod registry;
mod server;
mod session;
mod stats;
mod subscriptions;
mod tls;
mod transport;
mod wire;

pub use admission::{Admission, Refused};
pub use backbone::BackboneError;
pub use backbone::nats::Calls;
pub use bus::{Bus, BusConfig, BusError, BusStats, Inflow};
pub use config::EdgeConfig;
pub use edge::{ALPN, Edge, EdgeError, StartError};
pub use identity::{BOX_URN, IdentityError, identity_from_certificate};
pub use incoming::{Incoming, Upward};
pub use mailbox::Delivery;
pub use reason::Reason;
pub use stats::Stats;
pub use tls::{TlsError, server_config};

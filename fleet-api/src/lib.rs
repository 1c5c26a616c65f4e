//! The cloud: enrolment, MQTT consumer, SQL store, commands, rollouts, orders, objects, HTTP API.

pub mod auth;
pub mod clock;
pub mod fleet;
pub mod http;
pub mod listen;
pub mod objects;
pub mod store;
